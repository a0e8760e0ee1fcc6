"""When a trial is not worth going on with: two rules, both learned from the run's own trials.

How errors go on after a round, and what finishing wins back, is taken from the trials that have ended: at its best in
ten. A trial is stopped where even so it would end above the limit, or behind what the front has at its compression.
"""

import math
from collections.abc import Sequence

from tune_prune.recovery import PRIOR, pairs
from tune_prune.results.records import TrialRecord

SEEN = 8
"""Trials that must have gone on from a round before any is stopped there."""

BEST = 0.1
"""The share of trials whose course is taken for the best that can be hoped for."""

LET_THROUGH = 8
"""One in so many of the trials that would be stopped goes on, to measure what stopping costs."""


def verdict(
    record: TrialRecord,
    compression: float,
    ended: Sequence[TrialRecord],
    dense_error: float,
    limit: float,
    finishing: bool = False,
) -> str:
    """Why a trial should be stopped after its last round so far, or nothing.

    `compression` is where the trial is going, `ended` the others, errors in percent. `finishing` says that trials are
    finished in this run: until one was, what it wins back is assumed.
    """
    now = record.last
    onward = _courses(record, ended, dense_error)
    finished = [_excess(pair.after, dense_error) / _excess(pair.before, dense_error) for pair in pairs(ended)]
    if len(onward) < SEEN or record.kind == "finish":
        return ""
    best = _excess(now.val_error, dense_error) * _quantile(onward)
    if finished or finishing:
        best *= min(1.0, _quantile(finished or [PRIOR]))
    hoped = dense_error + best
    said = f"{now.val_error:.2f} % after round {now.round} promises {hoped:.2f} % at best"
    if hoped > limit:
        return f"{said}, above the limit of {limit:.2f} %"
    there = [p.val_error for r in ended for p in r.points if p.feasible and p.compression >= compression]
    if there and hoped > min(there):
        return f"{said}; {min(there):.2f} % is reached at its compression"
    return ""


def _courses(record: TrialRecord, ended: Sequence[TrialRecord], dense_error: float) -> list[float]:
    """By how much the error above the dense model's was multiplied, from this round to the end of other trials."""
    found = []
    for other in ended:
        here = next((point for point in other.points if point.round == record.last.round), None)
        if other.state == "complete" and other.kind == record.kind and here is not None and here is not other.last:
            found.append(_excess(other.last.val_error, dense_error) / _excess(here.val_error, dense_error))
    return found


def _excess(error: float, dense_error: float) -> float:
    """The error above the dense model's; at least a hundredth of a point, one image in 10,000."""
    return max(error - dense_error, 0.01)


def _quantile(values: Sequence[float]) -> float:
    """The value that the `BEST` share of them does not exceed; of a few the least."""
    return sorted(values)[math.floor(BEST * (len(values) - 1))]
