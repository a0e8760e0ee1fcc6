"""Refinement: prunes the most promising trials anew, in small steps, and retrains them for longer.

Most trials retrain for a moment only. Gradual pruning ends better than retraining what one large step left, so a
refinement does not train the other trial's masks on: it starts from a round with several times the weights and prunes
to the same ratios again in small steps, each of which is a point.

Recovery is the share of the error above the dense model's that is left after refinement, learned from the run's own
refinements. It differs along the front: the error of a strongly pruned network falls by much; that of a slightly pruned
one is noise and stays. What is said of errors here holds for any metric as a cost (`Metric.cost`).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tune_prune.hpo.phases import Refinement
from tune_prune.results.constraints import Constraints
from tune_prune.results.pareto import front
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import ERROR, Metric

ASSUMED_RECOVERY = 0.3
"""The recovery before any trial was refined."""

NEAREST = 5
"""The recovery at a compression is the median over so many refined trials, those nearest to it."""

MIN_WEIGHTS_RATIO = 3.0
"""A refinement starts where at least so many times the weights are left that it ends with."""


@dataclass(frozen=True)
class RefinedPair:
    """A refined trial: its compression, and its validation error, or metric as a cost, before and after refinement."""

    compression: float
    before: float
    after: float


def refined_pairs(records: Sequence[TrialRecord], metric: Metric = ERROR) -> list[RefinedPair]:
    """Every refined trial, in the order of the refinements."""
    by_trial = {record.trial: record for record in records}
    both = [(by_trial.get(r.refines), r) for r in records if r.refines is not None and r.state == "complete"]
    lasts = [(before.last, after.last) for before, after in both if before is not None and before.points]
    cost = metric.cost
    return [RefinedPair(before.compression, cost(before.judged), cost(after.judged)) for before, after in lasts]


def standard_error(error: float, images: int) -> float:
    """The binomial standard error, in percentage points, of an error in percent counted on so many images."""
    return math.sqrt(error * (100 - error) / images)


@dataclass(frozen=True)
class Recovery:
    """What refinements have recovered: `pairs`, and the dense model's validation error and its standard error.

    Errors are in percent, or any metric as a cost. An error within the standard error of the dense model's is expected
    to stay as it is.
    """

    pairs: Sequence[RefinedPair]
    dense_error: float
    standard_error: float = 0.0

    def share_left(self, compression: float) -> float:
        """The share, at most 1, of an error above the dense model's that refinement is expected to leave."""
        kept = _log_kept(compression)
        significant = [pair for pair in self.pairs if pair.before > self.dense_error + self.standard_error]
        nearest = sorted(significant, key=lambda pair: abs(_log_kept(pair.compression) - kept))[:NEAREST]
        shares = [max(0.0, p.after - self.dense_error) / (p.before - self.dense_error) for p in nearest]
        return min(1.0, median(shares or [ASSUMED_RECOVERY]))

    def expected_error(self, error: float, compression: float) -> float:
        """The expected error after refining a trial that ends with `error`."""
        if error <= self.dense_error + self.standard_error:
            return error
        return self.dense_error + self.share_left(compression) * (error - self.dense_error)

    def max_recoverable_error(self, limit: float, compression: float) -> float:
        """The highest error that refinement is expected to bring down to the `limit`."""
        return self.dense_error + (limit - self.dense_error) / max(self.share_left(compression), 0.05)


def should_refine(started: int, refinements: int, budget: float, share: float, wait: float = 0.2) -> bool:
    """Whether the next trial should refine another one.

    Of `started` trials so far, `refinements` refine another. The `share` of the budget that is kept for refinements is
    spread evenly over the budget after its first `wait`. An infinite budget has no such share.
    """
    if math.isinf(budget):
        return False
    begin = wait * budget
    return refinements < math.ceil(round(share * budget) * (started - begin) / (budget - begin))


def refinement_params(refine: Refinement, params: TrialParams, start: Mapping[str, float]) -> TrialParams:
    """The parameters of a trial that refines one with these; `start` are the ratios from which it starts, if any."""
    gradual = params.with_training(schedule="geometric", rounds=refine.rounds, lr=refine.lr)
    rounds_left = refine.rounds - gradual.to_plan().rounds_within(start)
    if refine.final_steps is None:
        steps = math.ceil(refine.steps / rounds_left)
        return gradual.with_training(steps=steps, final_steps=steps)
    steps = math.ceil(refine.steps / max(1, rounds_left - 1))
    return gradual.with_training(steps=steps, final_steps=refine.final_steps)


def choose_trial(
    records: Sequence[TrialRecord],
    refined: Collection[int],
    recovery: Recovery,
    limits: Constraints,
    *,
    beyond_front: bool = False,
) -> TrialRecord | None:
    """The trial whose refinement is expected to add most to the hypervolume; None where there is none to refine.

    `refined` are the trials that are refined already or being refined. With `beyond_front` it is a trial that is
    expected to keep the limit beyond all that was reached: the hypervolume alone would leave the far end of the front
    to chance, since a point near the limit adds little area. Where nothing is expected to add anything, it is the most
    compressed trial that should keep the limit, and where none should, the one that comes nearest.
    """

    cost, max_cost = limits.metric.cost, limits.max_cost

    def expected(record: TrialRecord) -> float:
        return recovery.expected_error(cost(record.last.judged), record.last.compression)

    reached = [(point.compression, cost(point.judged)) for r in records for point in r.points if point.feasible]
    # running refinements count as successful, so that two at a time are not spent on the same place
    running = set(refined) - {r.refines for r in records}
    reached += [(r.last.compression, expected(r)) for r in records if r.trial in running and r.points]
    reached = [reached[i] for i in front(reached)]
    rest = [r for r in records if r.state == "complete" and r.kind == "explore" and r.trial not in refined]
    rest = [r for r in rest if _may_keep_limits(r.last, recovery, limits)]
    rest.sort(key=lambda record: record.trial)
    # a dominated trial is not expected to add more
    candidates = [rest[i] for i in front([(r.last.compression, cost(r.last.judged)) for r in rest])]

    def gain_and_margin(record: TrialRecord) -> tuple[float, float, float]:
        error = expected(record)
        gain = limits.hypervolume([*reached, (record.last.compression, error)]) if error <= max_cost else 0.0
        return gain, min(0.0, max_cost - error), record.last.compression

    if beyond_front:
        keeping = [r for r in candidates if expected(r) <= max_cost]
        failed = [r.last.compression for r in records if r.kind == "refine" and r.points and not r.last.feasible]
        candidates = _choose_beyond_front(keeping, max((c for c, _ in reached), default=0.0), failed) or candidates
    return max(candidates, key=gain_and_margin, default=None)


def _may_keep_limits(point: PointRecord, recovery: Recovery, limits: Constraints) -> bool:
    """Whether a point keeps the limits besides that on the metric, or is expected to once it is refined.

    Refinement improves metrics alone, no costs.
    """
    if point.within or not limits.dense:
        return point.within
    return limits.within(limits.after_refinement(point.costs, recovery.share_left(point.compression)))


def _choose_beyond_front(
    candidates: Sequence[TrialRecord], reached: float, failed: Sequence[float]
) -> list[TrialRecord]:
    """The trial with which to try the far end of the front, if any is beyond the compression `reached`.

    `candidates` ascend in compression. While no refinement has `failed` beyond, it is the most compressed. Afterwards
    it bisects: it is the one nearest to the middle, in the logarithm of the factor, of what is reached and the
    nearest failure.
    """
    nearest = min((compression for compression in failed if compression > reached), default=1.0)
    between = [r for r in candidates if reached < r.last.compression < nearest]
    if nearest == 1.0 or not between:
        return between[-1:]
    middle = (_log_kept(reached) + _log_kept(nearest)) / 2
    return [min(between, key=lambda r: abs(_log_kept(r.last.compression) - middle))]


def _log_kept(compression: float) -> float:
    """The logarithm of the share of weights that is left; finite where none is."""
    return math.log(max(1 - compression, 1e-16))
