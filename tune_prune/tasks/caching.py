"""Keeps a data set of inputs and classes in memory, where its samples are the same in every reading and fit there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import as_tensors
from tune_prune.tasks.objective import Objective
from tune_prune.tasks.random_states import seeded_generators
from tune_prune.tasks.sources import Items
from tune_prune.tasks.splits import AnySplit, Split, check_split
from tune_prune.tasks.user_code import user_code

MEMORY_LIMIT = 2 * 2**30
"""Bytes of a split that are kept in memory. It is the same on every machine, so that a resumed run reads alike."""

PROCESS_LIMIT = MEMORY_LIMIT // 8
"""The same where every process keeps its own, since the training split is not in memory that they share."""

FIRST, READINGS = 16, 4
"""How many samples are read to see what a data set holds, and how often, to see whether they are random."""

Say = Callable[[str], None]


def split_data_set(
    data: str, part: str, dataset: Any, objective: Objective, say: Say, limit: int = MEMORY_LIMIT
) -> AnySplit:
    """Makes a split of a map-style data set: kept in memory where `keep_in_memory` does so, else read anew.

    `say` gets a line where it is kept, or is not though it is a classification. Raises a `UserError` where it is empty,
    or where inputs differ in shape.
    """
    if not len(dataset):
        raise UserError(f"data {data!r}: a data set must hold pairs (input, label); the {part} split is empty")
    if objective.is_classification:
        with user_code("data", f"{data}, {part}"):
            kept = keep_in_memory(data, part, dataset, say, limit)
        if kept is not None:
            return check_split(data, part, kept)
    return BatchSplit(Items(dataset), objective, f"{data}, {part}")


def keep_in_memory(data: str, part: str, dataset: Any, say: Say, limit: int, advice: str = "") -> Split | None:
    """Reads a data set of pairs (input, class) into memory; None where they are no such pairs, too many, or random.

    The first samples decide, each read several times. `say` gets a line, and a `UserError` is raised where inputs
    differ in shape, with `advice` at its end.
    """
    count, where = len(dataset), f"data {data!r}: a data set must hold pairs (input, label) of equal shapes; {part}"
    first = _read_first(dataset, 0)
    if first is None:
        return None
    shape, dtype = first[0][0].shape, first[0][0].dtype
    for at, (value, _) in enumerate(first):
        _check_shape(value, shape, f"{where} input {at}", advice)
    size = count * shape.numel() * dtype.itemsize
    if size > limit:
        say(f"{data}: {part} samples would take {size / 2**30:.1f} GiB, and are read anew in every epoch")
        return None
    if not all(_are_equal(first, _read_first(dataset, seed)) for seed in range(1, READINGS)):
        say(f"{data}: {part} samples are drawn at random, and are read anew in every epoch")
        return None
    inputs, labels = torch.empty((count, *shape), dtype=dtype), list[float]()
    for at in range(count):
        value, label = _as_pair(dataset[at])
        _check_shape(value, shape, f"{where} input {at}", advice)
        inputs[at] = value
        labels.append(label)
    say(f"{data}: {part} samples are kept in memory, {size / 2**20:.1f} MiB")
    return Split(inputs, torch.tensor(labels))


def _read_first(dataset: Any, seed: int) -> list[tuple[Tensor, float]] | None:
    """Reads the first samples, from random states of this seed; None where they are not pairs of input and class."""
    with seeded_generators(seed):
        samples = [dataset[at] for at in range(min(len(dataset), FIRST))]
    if not all(isinstance(sample, tuple | list) and len(sample) == 2 and _is_number(sample[1]) for sample in samples):
        return None
    if any(isinstance(sample[0], tuple | dict) for sample in samples):
        return None
    return [_as_pair(sample) for sample in samples]


def _is_number(label: object) -> bool:
    if isinstance(label, Tensor | np.ndarray | np.generic):
        return label.ndim == 0
    return isinstance(label, int | float)


def _as_pair(sample: Any) -> tuple[Tensor, float]:
    value, label = sample
    number = label.item() if isinstance(label, Tensor | np.ndarray | np.generic) else label
    return torch.as_tensor(as_tensors(value)), number


def _check_shape(value: Tensor, shape: torch.Size, what: str, advice: str) -> None:
    if value.shape != shape:
        raise UserError(f"{what} is {list(value.shape)}, and the first is {list(shape)}{advice}")


def _are_equal(first: list[tuple[Tensor, float]], other: list[tuple[Tensor, float]] | None) -> bool:
    if other is None:
        return False
    return all(
        one.shape == two.shape and bool(_is_same(one, two).all()) and bool(_is_same(label, again))
        for (one, label), (two, again) in zip(first, other, strict=True)
    )


def _is_same(one: Any, two: Any) -> Any:
    """Where values are equal, or both NaN."""
    return (one == two) | ((one != one) & (two != two))
