"""Makes splits of what a user's factory returns: tensors or NumPy arrays, a data set, a stream, or batches."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import as_tensors, iterate_tensors, map_leaves
from tune_prune.tasks.caching import MEMORY_LIMIT, PROCESS_LIMIT, split_data_set
from tune_prune.tasks.mapped_arrays import is_mapped
from tune_prune.tasks.objective import Objective
from tune_prune.tasks.sources import Loader, Rows, Stream
from tune_prune.tasks.splits import AnySplit, Data, Split, check_split

Say = Callable[[str], None]


def make_data(name: str, splits: object, objective: Objective, say: Say) -> Data:
    """Makes a `Data` of a factory's train, validation and test; a test data set is read when it is asked for.

    Raises a `UserError` that names the data and the split.
    """
    if not (isinstance(splits, tuple) and len(splits) == 3):
        raise UserError(f"data {name!r} must return (train, validation, test), each a pair (inputs, labels)")
    train = make_split(name, "training", splits[0], objective, say)
    limit = MEMORY_LIMIT if isinstance(train, Split) else PROCESS_LIMIT
    validation = make_split(name, "validation", splits[1], objective, say, limit)
    if has_rows(splits[2]) or splits[2] is None:
        test = make_split(name, "test", splits[2], objective, say)
        return Data(train, validation, lambda: test)
    return Data(train, validation, lambda: make_split(name, "test", splits[2], objective, say, limit))


def make_split(
    data: str, part: str, given: object, objective: Objective, say: Say, limit: int = MEMORY_LIMIT
) -> AnySplit:
    """Makes a split of what a factory returned for a part of the data set `data`, such as "training".

    That is a pair or any other structure of tensors or arrays, a map-style data set, an iterable data set of samples,
    or an iterable of batches. `say` gets a line where samples are counted, or kept in memory, of which `limit` bytes
    may be. Raises a `UserError`.
    """
    where, name = f"{data}, {part}", f"data {data!r}: the {part} split"
    if isinstance(given, Split | BatchSplit):
        return given
    if has_rows(given):
        return _split_rows(data, part, given, objective)
    if isinstance(given, IterableDataset):  # which inherits a __getitem__ that it does not have
        return BatchSplit(Stream.read(given, name, say), objective, where)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return split_data_set(data, part, given, objective, say, limit)
    if isinstance(given, Iterable):
        return BatchSplit(Loader.read(given, name, say), objective, where)
    return check_split(data, part, (given, None))


def has_rows(given: object) -> bool:
    """Whether a split is tensors or arrays, with a row for each sample; else it is read when it is asked for."""
    return isinstance(given, tuple | Mapping | Tensor | np.ndarray)


def _split_rows(data: str, part: str, given: Any, objective: Objective) -> AnySplit:
    """Makes a split of tensors and arrays; those in mapped files stay there where they are larger than memory is."""
    leaves = list[Any]()
    map_leaves(given, leaves.append)
    mapped = any(map(is_mapped, leaves)) and sum(getattr(leaf, "nbytes", 0) for leaf in leaves) > MEMORY_LIMIT
    rows = as_tensors(given, convert=not mapped)
    if objective.is_classification and not mapped and not _is_structured(rows):
        return check_split(data, part, rows if isinstance(rows, tuple) and len(rows) == 2 else (rows, None))
    tensors = list(iterate_tensors(rows))
    if not tensors or any(tensor.dim() == 0 or len(tensor) != len(tensors[0]) for tensor in tensors):
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors) or "none"
        raise UserError(f"data {data!r}: tensors of the {part} split must have a row for each sample; it has {shapes}")
    if not len(tensors[0]):
        raise UserError(f"data {data!r}: the {part} split has no samples")
    return BatchSplit(Rows(rows, mapped), objective, f"{data}, {part}")


def _is_structured(rows: Any) -> bool:
    """Whether rows are more than inputs [n, ...] with a class each: several inputs, a mapping, or labels [n, ...]."""
    if isinstance(rows, Mapping):
        return True
    if not (isinstance(rows, tuple) and len(rows) == 2):
        return False
    inputs, labels = rows
    several = isinstance(inputs, tuple | Mapping) and isinstance(labels, Tensor)
    return several or (isinstance(labels, Tensor) and labels.dim() > 1 and not labels.is_floating_point())
