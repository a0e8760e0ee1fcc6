"""Shares out the samples of a batch to processes that train one model together."""

from dataclasses import dataclass


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
