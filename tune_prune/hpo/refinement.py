"""How much finishing wins back, learned from the run's own trials.

The recovery is the share of the error above the dense model's that is left after finishing. It differs along the front:
where much is removed, much is won back; where little is, the error above the dense model's is noise and stays.

Which trials to finish: most trials retrain for a moment, the few that promise most are trained on.

What was pruned in a few large steps has lost weights that small steps would have kept, and no retraining gives them
back. A finishing trial therefore does not train the other's masks on: it goes back to a round with several times the
weights and prunes to the same ratios again, little by little (`way`), a point at every step.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tune_prune.hpo.space import Refinement, to_plan
from tune_prune.results.pareto import front, hypervolume
from tune_prune.results.records import TrialRecord

ASSUMED_RECOVERY = 0.3
"""The recovery assumed before any trial was finished."""

NEAREST = 5
"""The recovery at a compression is the median of those of so many finished trials nearest to it."""


@dataclass(frozen=True)
class RefinedPair:
    """A trial that was finished: its compression, and its validation error in percent before and after."""

    compression: float
    before: float
    after: float


def refined_pairs(records: Sequence[TrialRecord]) -> list[RefinedPair]:
    """Every trial that was finished, in the order of those that finished them."""
    by_trial = {record.trial: record for record in records}
    both = [(by_trial.get(r.refines), r) for r in records if r.refines is not None and r.state == "complete"]
    whole = [(before.last, after.last) for before, after in both if before is not None and before.points]
    return [RefinedPair(before.compression, before.val_error, after.val_error) for before, after in whole]


def standard_error(error: float, images: int) -> float:
    """Of an error in percent that was counted on so many images, in percentage points (binomial)."""
    return math.sqrt(error * (100 - error) / images)


@dataclass(frozen=True)
class Recovery:
    """What was seen of finishing, and the dense model's validation error in percent with its standard error, `noise`.

    An error within the noise of the dense model's has nothing to win back, as far as anyone can tell.
    """

    seen: Sequence[RefinedPair]
    dense_error: float
    noise: float = 0.0

    def at(self, compression: float) -> float:
        """The share of an error above the dense model's that is expected to be left; at most 1."""
        kept = math.log(1 - compression)
        telling = [pair for pair in self.seen if pair.before > self.dense_error + self.noise]
        nearest = sorted(telling, key=lambda pair: abs(math.log(1 - pair.compression) - kept))[:NEAREST]
        shares = [max(0.0, p.after - self.dense_error) / (p.before - self.dense_error) for p in nearest]
        return min(1.0, median(shares or [ASSUMED_RECOVERY]))

    def expected(self, error: float, compression: float) -> float:
        """The error expected after finishing a trial that ends with `error`, both in percent."""
        if error <= self.dense_error + self.noise:
            return error
        return self.dense_error + self.at(compression) * (error - self.dense_error)

    def max_recoverable_error(self, limit: float, compression: float) -> float:
        """The highest error, in percent, that finishing is expected to bring down to the `limit`."""
        return self.dense_error + (limit - self.dense_error) / max(self.at(compression), 0.05)


MIN_WEIGHTS_RATIO = 3.0
"""A finishing trial begins where at least so many times the weights are left that it ends with."""


def should_refine(started: int, refinements: int, budget: float, share: float, wait: float = 0.2) -> bool:
    """Whether the next trial should finish another one.

    `started` trials so far, `finishing` of them finish another. The `share` of the budget that is kept for finishing
    is spread evenly over the budget after its first `wait`. Of an infinite budget nothing is gone yet.
    """
    if math.isinf(budget):
        return False
    begin = wait * budget
    return refinements < math.ceil(round(share * budget) * (started - begin) / (budget - begin))


def refinement_params(refine: Refinement, params: Mapping[str, Any], begun: Mapping[str, float]) -> dict[str, Any]:
    """The parameters of a trial that finishes one with these; `begun` are the ratios at which it begins, if any."""
    own = {"schedule": "geometric", "rounds": refine.rounds, "lr": refine.lr}
    left = refine.rounds - to_plan({**params, **own}).rounds_within(begun)
    steps = math.ceil(refine.steps / left)
    return {**params, **own, "steps": steps, "final_steps": steps}


def choose_trial(
    records: Sequence[TrialRecord],
    taken: Collection[int],
    recovery: Recovery,
    limit: float,
    *,
    farthest: bool = False,
) -> TrialRecord | None:
    """The trial whose finishing is expected to add most to the hypervolume; None where there is none to finish.

    With `farthest` it is one of those that are expected to keep the `limit` and go beyond all that was reached: the
    hypervolume alone leaves the far end of the front to chance, where a point near the limit adds little area. `taken`
    are the trials that are finished already or being finished. Where nothing is expected to add anything, it is the
    most compressed that should keep the limit, and where none should, the one that comes nearest.
    """

    def expected(record: TrialRecord) -> float:
        return recovery.expected(record.last.val_error, record.last.compression)

    reached = [(point.compression, point.val_error) for r in records for point in r.points if point.feasible]
    # what is being finished now counts as if it had succeeded: two at a time are not spent on the same place
    now = set(taken) - {r.refines for r in records}
    reached += [(r.last.compression, expected(r)) for r in records if r.trial in now and r.points]
    reached = [reached[i] for i in front(reached)]
    rest = [r for r in records if r.state == "complete" and r.kind == "explore" and r.trial not in taken]
    rest = [r for r in rest if r.last.within]  # finishing lowers the error alone
    rest.sort(key=lambda record: record.trial)
    # a dominated one promises no more at best
    candidates = [rest[i] for i in front([(r.last.compression, r.last.val_error) for r in rest])]

    def promise(record: TrialRecord) -> tuple[float, float, float]:
        error = expected(record)
        gain = hypervolume([*reached, (record.last.compression, error)], limit) if error <= limit > 0 else 0.0
        return gain, min(0.0, limit - error), record.last.compression

    if farthest:
        far = [r for r in candidates if expected(r) <= limit]
        failed = [r.last.compression for r in records if r.kind == "refine" and r.points and not r.last.feasible]
        candidates = _farthest(far, max((c for c, _ in reached), default=0.0), failed) or candidates
    return max(candidates, key=promise, default=None)


def _farthest(far: Sequence[TrialRecord], reached: float, failed: Sequence[float]) -> list[TrialRecord]:
    """The one to try the far end with, ascending in compression, if there is one beyond what is `reached`.

    It is the most compressed as long as nothing has `failed` beyond; then the one nearest to the middle, in the
    logarithm of the factor, of what is reached and the nearest that failed: a bisection.
    """
    nearest = min((compression for compression in failed if compression > reached), default=1.0)
    between = [r for r in far if reached < r.last.compression < nearest]
    if nearest == 1.0 or not between:
        return between[-1:]
    middle = (math.log(1 - reached) + math.log(1 - nearest)) / 2
    return [min(between, key=lambda r: abs(math.log(1 - r.last.compression) - middle))]
