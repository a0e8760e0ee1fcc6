"""Which trials to finish: most trials retrain for a moment, the few that promise most are trained on.

A finishing trial goes on from another trial's last weights and masks with a long retraining, and may be finished once
more itself. How much either wins back is learned from the run: `recovery` is the share of the error above the dense
model's that is left afterwards.
"""

import math
from collections.abc import Collection, Sequence
from statistics import median

from tune_prune.pareto import front, hypervolume
from tune_prune.records import TrialRecord

PRIOR, AGAIN = 0.3, 0.9
"""The recovery assumed before any trial was finished, and before any was finished again."""


def due(started: int, finishing: int, budget: float, share: float, wait: float = 0.2) -> bool:
    """Whether the next trial should finish another one.

    `started` trials so far, `finishing` of them finish another. The `share` of the budget that is kept for finishing
    is spread evenly over the budget after its first `wait`. Of an infinite budget nothing is gone yet.
    """
    if math.isinf(budget):
        return False
    begin = wait * budget
    return finishing < math.ceil(round(share * budget) * (started - begin) / (budget - begin))


def pairs(records: Sequence[TrialRecord], again: bool = False) -> list[tuple[float, float]]:
    """The validation error before and after, of every trial that finished another for the first time, or `again`."""
    by_trial = {record.trial: record for record in records}
    both = [(by_trial.get(r.parent), r) for r in records if r.kind == "finish" and r.parent is not None and r.points]
    whole = [(before, after) for before, after in both if before and before.points]
    return [(b.last.val_error, after.last.val_error) for b, after in whole if (b.kind == "finish") == again]


def recovery(records: Sequence[TrialRecord], dense_error: float, again: bool = False) -> float:
    """The median of (error - dense) after finishing to before, of trials finished for the first time, or `again`."""
    found = pairs(records, again)
    shares = [max(0.0, after - dense_error) / (before - dense_error) for before, after in found if before > dense_error]
    return median(shares or [AGAIN if again else PRIOR])


def predicted(error: float, dense_error: float, recovered: float) -> float:
    """The error expected after finishing a trial that ends with `error`."""
    return dense_error + recovered * max(0.0, error - dense_error)


def choose(
    records: Sequence[TrialRecord],
    taken: Collection[int],
    dense_error: float,
    limit: float,
    *,
    gone: Collection[int] = (),
    farthest: bool = False,
) -> TrialRecord | None:
    """The trial whose finishing is expected to add most to the hypervolume; None where there is none to finish.

    With `farthest` it is one of those that are expected to keep the `limit` and go beyond all that was reached: the
    hypervolume alone leaves the far end of the front to chance, where a point near the limit adds little area. `taken`
    are the trials that are finished already or being finished, `gone` those whose weights are not kept any more. Where
    no trial is expected to come below the limit, the one that comes nearest is chosen.
    """
    left = {again: recovery(records, dense_error, again) for again in (False, True)}

    def expected(record: TrialRecord) -> float:
        return predicted(record.last.val_error, dense_error, left[record.kind == "finish"])

    reached = [(point.compression, point.val_error) for r in records for point in r.points if point.feasible]
    # what is being finished now counts as if it had succeeded: two at a time are not spent on the same place
    now = set(taken) - {r.parent for r in records if r.kind == "finish"}
    reached += [(r.last.compression, expected(r)) for r in records if r.trial in now and r.points]
    once = {r.trial for r in records if r.kind == "finish"}
    twice = {r.trial for r in records if r.kind == "finish" and r.parent in once}  # a third time wins nothing back
    rest = [r for r in records if r.state == "complete" and r.trial not in {*taken, *gone, *twice}]
    rest.sort(key=lambda record: record.trial)
    # a dominated one promises no more at best, and `rounds` keeps the weights of the first fronts alone
    candidates = [rest[i] for i in front([(r.last.compression, r.last.val_error) for r in rest])]

    def promise(record: TrialRecord) -> tuple[float, float]:
        error = expected(record)
        gain = hypervolume([*reached, (record.last.compression, error)], limit) if error <= limit > 0 else 0.0
        return gain, -error

    if farthest:
        far = [r for r in candidates if expected(r) <= limit]
        failed = [r.last.compression for r in records if r.kind == "finish" and r.points and not r.last.feasible]
        candidates = _beyond(far, max((c for c, _ in reached), default=0.0), failed) or candidates
    return max(candidates, key=promise, default=None)


def _beyond(far: Sequence[TrialRecord], reached: float, failed: Sequence[float]) -> list[TrialRecord]:
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
