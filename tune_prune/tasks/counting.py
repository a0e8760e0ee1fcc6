"""Counts the samples of what a user iterates: by its length, or by reading it once."""

from collections.abc import Callable, Iterable
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from tune_prune.common.errors import UserError
from tune_prune.tasks.random_states import seeded_generators
from tune_prune.tasks.user_code import user_code


def check_repeatable(iterable: Iterable[Any], name: str) -> None:
    """Raises a `UserError` that names `name` where an iterable is an iterator, which can be read once alone."""
    if iter(iterable) is iterable:
        raise UserError(f"{name} can be iterated only once; give a DataLoader, a list, or a class with __iter__")


def find_length(value: Any) -> int | None:
    """The length of a data set or a loader; None where it is not known, or 0."""
    try:
        return len(value) or None
    except (TypeError, NotImplementedError):
        return None


def find_sizes(iterable: Any) -> tuple[int, int] | None:
    """The numbers of batches and of samples of a DataLoader, where they are known without reading it."""
    size = getattr(iterable, "batch_size", None)
    if not isinstance(iterable, DataLoader) or size is None or (batches := find_length(iterable)) is None:
        return None
    samples = find_length(iterable.dataset if isinstance(iterable.dataset, IterableDataset) else iterable.sampler)
    return None if samples is None else (batches, batches * size if iterable.drop_last else samples)


def count_by_reading(
    iterable: Iterable[Any], name: str, say: Callable[[str], None], size: Callable[[Any], int]
) -> tuple[int, int]:
    """Counts what an iterable yields, and the samples in it, by reading it; raises a `UserError` where that is none.

    Also where it yields nothing when it is read again. `size` counts the samples of what is yielded, and `say` gets a
    line.
    """
    batches, samples = 0, 0
    with user_code("data", name), seeded_generators(0):
        for each in iterable:
            batches, samples = batches + 1, samples + size(each)
        if not samples:
            raise UserError(f"{name} has no batch")
        if next(iter(iterable), None) is None:
            raise UserError(f"{name} is empty when it is iterated again; its __iter__ must begin anew every time")
    say(f"{name} was read once to count its samples: {samples:,}")
    return batches, samples
