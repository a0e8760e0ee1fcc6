"""Which trials to finish: most trials retrain for a moment, the few that promise most are trained on.

A finishing trial goes on from another trial's last weights and masks with a long retraining. How much that wins back
is learned from the run: `recovery` is the share of the error above the dense model's that is left afterwards.
"""

import math
from collections.abc import Collection, Sequence
from statistics import median

from tune_prune.pareto import front, hypervolume
from tune_prune.records import TrialRecord

PRIOR = 0.3
"""The recovery assumed before any trial was finished; 0.23 was measured (experiments/fidelity)."""


def due(started: int, finishing: int, budget: float, share: float, wait: float = 0.2) -> bool:
    """Whether the next trial should finish another one.

    `started` trials so far, `finishing` of them finish another. The `share` of the budget that is kept for finishing
    is spread evenly over the budget after its first `wait`. Of an infinite budget nothing is gone yet.
    """
    if math.isinf(budget):
        return False
    begin = wait * budget
    return finishing < math.ceil(round(share * budget) * (started - begin) / (budget - begin))


def pairs(records: Sequence[TrialRecord]) -> list[tuple[float, float]]:
    """The validation error before and after, of every trial that finished another."""
    by_trial = {record.trial: record for record in records}
    both = [(by_trial.get(r.parent), r) for r in records if r.kind == "finish" and r.parent is not None and r.points]
    return [(before.last.val_error, after.last.val_error) for before, after in both if before and before.points]


def recovery(records: Sequence[TrialRecord], dense_error: float) -> float:
    """The median, over finished trials, of (error - dense) after finishing to before."""
    found = pairs(records)
    shares = [max(0.0, after - dense_error) / (before - dense_error) for before, after in found if before > dense_error]
    return median(shares or [PRIOR])


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

    With `farthest` it is the most compressed of those that are expected to keep the `limit`, if it goes beyond all that
    was reached: the hypervolume alone leaves the far end of the front to chance, where a point near the limit adds
    little area. `taken` are the trials that are finished already or being finished, `gone` those whose weights are not
    kept any more. Where no trial is expected to come below the limit, the one that comes nearest is chosen.
    """
    recovered = recovery(records, dense_error)
    reached = [(point.compression, point.val_error) for r in records for point in r.points if point.feasible]
    # what is being finished now counts as if it had succeeded: two at a time are not spent on the same place
    reached += [
        (r.last.compression, predicted(r.last.val_error, dense_error, recovered))
        for r in records
        if r.trial in taken and r.points
    ]
    rest = [r for r in records if r.state == "complete" and r.kind != "finish" and r.trial not in {*taken, *gone}]
    rest.sort(key=lambda record: record.trial)
    # a dominated one promises no more at best, and `rounds` keeps the weights of the first fronts alone
    candidates = [rest[i] for i in front([(r.last.compression, r.last.val_error) for r in rest])]

    def promise(record: TrialRecord) -> tuple[float, float]:
        error = predicted(record.last.val_error, dense_error, recovered)
        gain = hypervolume([*reached, (record.last.compression, error)], limit) if error <= limit > 0 else 0.0
        return gain, -error

    if farthest:
        far = [r for r in candidates if predicted(r.last.val_error, dense_error, recovered) <= limit]
        beyond = [r for r in far if r.last.compression > max((c for c, _ in reached), default=0.0)]
        candidates = beyond[-1:] or candidates  # ascending in compression, as a front is
    return max(candidates, key=promise, default=None)
