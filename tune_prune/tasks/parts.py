"""Shares out the samples of a batch to processes that train one model together."""

import copy
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from torch import Tensor

from tune_prune.common.errors import UserError
from tune_prune.tasks.batches import Batch, count_samples, describe_structure


@dataclass(frozen=True)
class Part:
    """The contiguous part of every batch that the process `rank`, from 0, of `ranks` processes computes.

    Parts differ by one sample at most. Of a batch with fewer samples than processes, some processes compute a sample of
    another's with weight 0, since all have to take part in every step.
    """

    rank: int
    ranks: int

    def rows(self, count: int) -> slice:
        """The part's positions in a batch of `count` samples, at least one."""
        first, last = self._bounds(count)
        first = min(first, count - 1)
        return slice(first, max(last, first + 1))

    def weight(self, count: int) -> float:
        """How much the part's mean counts in the mean of a batch of `count` samples: 1 where all parts are equal."""
        first, last = self._bounds(count)
        return (last - first) * self.ranks / count

    def _bounds(self, count: int) -> tuple[int, int]:
        return count * self.rank // self.ranks, count * (self.rank + 1) // self.ranks


def take_rows(batch: Batch, rows: slice) -> Batch:
    """Takes samples out of a batch: rows of its tensors, and entries of the lists inside it.

    What is no tensor with dimensions and no list belongs to every sample. Raises a `UserError` where a tensor has no
    row for each sample.
    """
    count = count_samples(batch)

    def take_parts(part: Batch) -> Batch:
        if isinstance(part, Mapping):
            taken = copy.copy(part) if isinstance(part, MutableMapping) else dict(part)
            for key, value in part.items():
                taken[key] = take(value)
            return taken
        if isinstance(part, tuple) and hasattr(part, "_fields"):
            return type(part)(*map(take, part))
        return type(part)(map(take, part)) if isinstance(part, tuple | list) else take(part)

    def take(part: Batch) -> Batch:
        if isinstance(part, Tensor) and part.dim():
            if len(part) != count:
                raise UserError(
                    f"a batch of {count} samples has a tensor {list(part.shape)}, in {describe_structure(batch)}; only "
                    "tensors with a row for each sample can be shared out to several processes"
                )
            return part[rows]
        if isinstance(part, list) and len(part) == count and not all(_has_rows(one, count) for one in part):
            return part[rows]
        return take_parts(part) if isinstance(part, Mapping | tuple | list) else part

    return take_parts(batch)


def _has_rows(part: object, count: int) -> bool:
    """Whether an entry of a list is a tensor with a row for each sample: torch makes such lists of tuples."""
    return isinstance(part, Tensor) and part.dim() > 0 and len(part) == count
