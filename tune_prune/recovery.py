"""How much finishing wins back, learned from the run's own trials.

The recovery is the share of the error above the dense model's that is left after finishing. It differs along the front:
where much is removed, much is won back; where little is, the error above the dense model's is noise and stays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tune_prune.results.records import TrialRecord

PRIOR = 0.3
"""The recovery assumed before any trial was finished."""

NEAREST = 5
"""The recovery at a compression is the median of those of so many finished trials nearest to it."""


@dataclass(frozen=True)
class Pair:
    """A trial that was finished: its compression, and its validation error in percent before and after."""

    compression: float
    before: float
    after: float


def pairs(records: Sequence[TrialRecord]) -> list[Pair]:
    """Every trial that was finished, in the order of those that finished them."""
    by_trial = {record.trial: record for record in records}
    both = [(by_trial.get(r.finishes), r) for r in records if r.finishes is not None and r.state == "complete"]
    whole = [(before.last, after.last) for before, after in both if before is not None and before.points]
    return [Pair(before.compression, before.val_error, after.val_error) for before, after in whole]


def standard_error(error: float, images: int) -> float:
    """Of an error in percent that was counted on so many images, in percentage points (binomial)."""
    return math.sqrt(error * (100 - error) / images)


@dataclass(frozen=True)
class Recovery:
    """What was seen of finishing, and the dense model's validation error in percent with its standard error, `noise`.

    An error within the noise of the dense model's has nothing to win back, as far as anyone can tell.
    """

    seen: Sequence[Pair]
    dense_error: float
    noise: float = 0.0

    def at(self, compression: float) -> float:
        """The share of an error above the dense model's that is expected to be left; at most 1."""
        kept = math.log(1 - compression)
        telling = [pair for pair in self.seen if pair.before > self.dense_error + self.noise]
        nearest = sorted(telling, key=lambda pair: abs(math.log(1 - pair.compression) - kept))[:NEAREST]
        shares = [max(0.0, p.after - self.dense_error) / (p.before - self.dense_error) for p in nearest]
        return min(1.0, median(shares or [PRIOR]))

    def expected(self, error: float, compression: float) -> float:
        """The error expected after finishing a trial that ends with `error`, both in percent."""
        if error <= self.dense_error + self.noise:
            return error
        return self.dense_error + self.at(compression) * (error - self.dense_error)

    def hopeful(self, limit: float, compression: float) -> float:
        """The highest error, in percent, that finishing is expected to bring down to the `limit`."""
        return self.dense_error + (limit - self.dense_error) / max(self.at(compression), 0.05)
