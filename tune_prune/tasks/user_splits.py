"""Makes splits of what a user's data factory returns: arrays in memory, map-style data sets, or batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch, iterate_tensors
from tune_prune.tasks.objective import Objective
from tune_prune.tasks.sources import Items, Loader, Rows, seeded_generators
from tune_prune.tasks.splits import AnySplit, Data, Split, check_split, stack_pairs
from tune_prune.tasks.user_code import user_code

LARGEST = 2 * 2**30
"""Bytes of the inputs of a data set that is cached in memory, at most."""

COMPARED = 4
"""Samples of a data set that are read twice, to tell whether it draws something at random."""


def make_data(name: str, splits: object, objective: Objective, say: Callable[[str], None]) -> Data:
    """Makes a `Data` of a factory's train, validation and test. Raises a `UserError` that names the data."""
    if not (isinstance(splits, tuple) and len(splits) == 3):
        raise UserError(f"data {name!r} must return (train, validation, test), each a pair (inputs, labels)")
    named = zip(("training", "validation", "test"), splits, strict=True)
    train, validation, test = (_make_split(name, part, split, objective, say) for part, split in named)
    return Data(train, validation, lambda: test)


def _make_split(name: str, part: str, given: Any, objective: Objective, say: Callable[[str], None]) -> AnySplit:
    if isinstance(given, Split | BatchSplit):
        return given
    where = f"data {name!r}: the {part} split"
    arrays = _as_tensors(given)
    if isinstance(arrays, Mapping) and arrays and all(isinstance(value, Tensor) for value in arrays.values()):
        return BatchSplit(_check_rows(arrays, where), objective, where)
    if isinstance(arrays, tuple | Tensor):
        return _make_rows(name, part, arrays, objective, where)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return _make_items(name, part, given, objective, say)
    if isinstance(given, Iterable):
        return BatchSplit(Loader.read(given, where), objective, where)
    return check_split(name, part, (given, None))


def _as_tensors(value: Any) -> Any:
    """Converts NumPy arrays, in tuples and mappings too, to tensors over the same memory."""
    if isinstance(value, np.ndarray):
        # an array that cannot be written, as one of a file, is copied: tensors have no such flag
        return torch.from_numpy(value if value.flags.writeable else value.copy())
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(_as_tensors, value))
    if isinstance(value, dict):
        return {key: _as_tensors(one) for key, one in value.items()}
    return value


def _make_rows(name: str, part: str, arrays: Any, objective: Objective, where: str) -> AnySplit:
    """Makes a split of tensors: in memory as a classification where they are inputs and one label each."""
    if not objective.is_classification:
        return BatchSplit(_check_rows(arrays, where), objective, where)
    if isinstance(arrays, tuple) and len(arrays) == 2:
        inputs, labels = arrays
        classes = isinstance(labels, Tensor) and not labels.is_floating_point()
        one_each = isinstance(inputs, Tensor) and isinstance(labels, Tensor) and labels.dim() <= 1
        if classes and not one_each and list(iterate_tensors(inputs)):
            return BatchSplit(_check_rows(arrays, where), objective, where)
        return check_split(name, part, (inputs, labels))
    return check_split(name, part, (arrays, None))


def _check_rows(arrays: Batch, where: str) -> Rows:
    """Raises a `UserError` where tensors have not all as many rows, or none."""
    rows = {len(tensor) if tensor.dim() else 0 for tensor in iterate_tensors(arrays)}
    if len(rows) != 1 or rows == {0}:
        raise UserError(f"{where} must hold tensors with one row a sample; theirs are {sorted(rows)} rows")
    return Rows(arrays)


def _make_items(name: str, part: str, dataset: Any, objective: Objective, say: Callable[[str], None]) -> AnySplit:
    """Makes a split of a map-style data set; inputs with labels that draw nothing at random are kept in memory."""
    where = f"data {name!r}: the {part} split"
    items = BatchSplit(Items(dataset), objective, where)
    if not objective.is_classification and len(dataset) == 0:
        raise UserError(f"{where} has no sample")
    if not objective.is_classification:
        return items
    with seeded_generators(1), user_code("data", where):
        first = [dataset[at] for at in range(min(COMPARED, len(dataset)))]
    if first and not _is_labelled(first[0]):
        return items
    size = sum(tensor.nbytes for tensor in _list_tensors(first[:1])) * len(dataset)
    if size > LARGEST:
        say(f"{where} is read in every epoch: in memory it would take {size / 2**30:.1f} GB")
        return items
    with seeded_generators(2):
        again = [dataset[at] for at in range(len(first))]
    if not _are_equal(_list_tensors(first), _list_tensors(again)):
        say(f"{where} is read in every epoch: its samples are drawn at random each time")
        return items
    try:
        return check_split(name, part, stack_pairs(dataset))
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"data {name!r}: a data set must hold pairs (input, label) of equal shapes ({error})"
        ) from error


def _is_labelled(sample: Any) -> bool:
    """Whether a sample is an input and the number of a class, as far as its types say."""
    if not (isinstance(sample, tuple | list) and len(sample) == 2):
        return not isinstance(sample, Mapping)  # anything else is named by the message about pairs
    inputs, label = sample
    if isinstance(label, Tensor | np.ndarray) and label.ndim > 0:
        return False
    return not isinstance(inputs, Mapping | tuple)


def _list_tensors(samples: Sequence[Any]) -> list[Tensor]:
    """The tensors and arrays of samples, copied: a data set may use the same memory for the next one."""
    parts = [tuple(sample) if isinstance(sample, list) else sample for sample in samples]
    return [tensor.clone() for part in parts for tensor in iterate_tensors(_as_tensors(part))]


def _are_equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether two readings are the same; NaN counts as equal, and is found later."""
    if len(first) != len(second):
        return False
    return all(
        one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
        for one, other in zip(first, second, strict=True)
    )
