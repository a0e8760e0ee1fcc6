"""Ends trials that promise nothing, and a search of which too many trials fail.

Two rules stop a trial after a round, both learned from the run's own trials: even at the best tenth of what was seen of
later rounds and of refinement, it would end above the limit, or behind what the front has at its compression.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.refinement import ASSUMED_RECOVERY, refined_pairs
from tune_prune.hpo.search_settings import SearchSettings
from tune_prune.hpo.trial_store import TrialStore
from tune_prune.results import records
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import TrialRecord
from tune_prune.tasks.metrics import ERROR, Metric

MIN_COMPARED = 8
"""Trials that must have gone on from a round before any trial is stopped there."""

BEST_SHARE = 0.1
"""The share of trials whose further rounds count as the best that can be expected."""

EXEMPT_ONE_IN = 8
"""One in so many of the trials that would be stopped goes on, to measure what stopping costs."""

MIN_ENDED = 6
"""Trials that must have ended before failures end a search."""


class EarlyStopping:
    """Decides after each round whether to stop the trial, and writes the reason into the record of the ended trial."""

    def __init__(self, trial_store: TrialStore, run_dir: Path, settings: SearchSettings, seed: int) -> None:
        self._trial_store, self._run_dir, self._settings, self._seed = trial_store, run_dir, settings, seed
        self._reasons: dict[int, str] = {}

    def should_stop(self, number: int) -> bool:
        """Whether to stop a trial after the round that it has just ended.

        Queued trials, those that extend the front, and exempt ones are not stopped.
        """
        settings, attrs = self._settings, self._trial_store.attrs(number)
        may_stop = attrs.exempt is None and attrs.queued is None and attrs.extends is None
        if not settings.features.early_stopping or not may_stop:
            return False
        record = self._trial_store.read_record(number)
        assert record is not None
        estimates = self._trial_store.estimates
        record = replace(record, points=[estimates.estimate(point) for point in record.points])
        ended = list(estimates.records.values())
        target = settings.compression(record.params)
        refining = settings.refine.share > 0
        reason = reason_to_stop(record, target, ended, settings.dense_metric, settings.limits, refining)
        if reason and derive_seed(self._seed, number, 2) % EXEMPT_ONE_IN == 0:
            self._trial_store.set_attrs(number, exempt=reason)
        elif reason:
            self._reasons[number] = reason
        return number in self._reasons

    def mark_stopped(self, record: TrialRecord) -> TrialRecord:
        """The record of a trial that runs no more; where it was stopped, its record on disk says so from now on."""
        if record.trial not in self._reasons:
            return record
        return self._write(replace(record, state="stopped", reason=self._reasons.pop(record.trial)))

    def mark_exempt(self, record: TrialRecord) -> TrialRecord:
        """The record of an ended trial; where it was exempt from stopping, its record on disk says so from now on."""
        reason = self._trial_store.attrs(record.trial).exempt
        if reason is None or record.state != "complete" or record.reason:
            return record
        return self._write(replace(record, reason=f"{records.EXEMPT_PREFIX}{reason}"))

    def _write(self, record: TrialRecord) -> TrialRecord:
        records.write(self._run_dir, record)
        return record

    def failure_reason(self) -> str:
        """Why to end the search before its budget, or "": more trials have failed than may."""
        ended, most = len(self._trial_store.records), self._settings.max_failures
        failed = [record for record in self._trial_store.records.values() if record.state == "failed"]
        if ended < MIN_ENDED or len(failed) <= most * ended:
            return ""
        share = f"{len(failed)} of {ended} trials failed, more than --max-failures {most:g}"
        return f"{share}; the last: {failed[-1].reason}"


def reason_to_stop(
    record: TrialRecord,
    compression: float,
    ended: Sequence[TrialRecord],
    dense: float,
    limits: Constraints,
    refining: bool = False,
) -> str:
    """Why to stop a trial after its last round so far, or "".

    `compression` is what the trial prunes to, `ended` the other trials, `dense` the dense model's metric. `refining`
    says that this search refines trials: before one was refined, a recovery is assumed.
    """
    metric, excess = limits.metric, _Excess(dense, limits)
    later = _excess_ratios(record, ended, excess)
    refined = [excess.of_cost(pair.after) / excess.of_cost(pair.before) for pair in refined_pairs(ended, metric)]
    if len(later) < MIN_COMPARED or record.kind != "explore":
        return ""
    left = min(1.0, _best(refined or [ASSUMED_RECOVERY])) if refined or refining else 1.0
    best = metric.cost(dense) + excess.of_value(record.last.judged) * _best(later) * left
    promise = _describe_promise(record, best, metric)
    if best > limits.max_cost:
        return f"{promise}, {_describe_limit(limits)}"
    reached = [metric.cost(p.judged) for r in ended for p in r.points if p.feasible and p.compression >= compression]
    if reached and best > min(reached):
        return f"{promise}; {metric.format(metric.value(min(reached)))} is reached at its compression"
    return _find_lost_limit(record, ended, limits, left)


def _find_lost_limit(record: TrialRecord, ended: Sequence[TrialRecord], limits: Constraints, left: float) -> str:
    """Which limit on a further metric a trial does not keep even at best, or ""; none that the dense model breaks.

    `left` is the share of an excess that refinement leaves at best.
    """
    for one in limits.of_further_metrics():
        metric, dense = one.metric, limits.dense.get(one.metric.val, math.nan)
        seen = _judge_by(metric, record)
        if not (metric.cost(dense) <= one.max_cost and math.isfinite(seen.last.val_metric)):
            continue
        excess = _Excess(dense, one)
        later = _excess_ratios(seen, [_judge_by(metric, other) for other in ended], excess)
        later = [ratio for ratio in later if math.isfinite(ratio)]
        best = metric.cost(dense) + excess.of_value(seen.last.val_metric) * _best(later or [0.0]) * left
        if best > one.max_cost:
            return f"{metric.name} of {_describe_promise(seen, best, metric)}, {_describe_limit(one)}"
    return ""


def _judge_by(metric: Metric, record: TrialRecord) -> TrialRecord:
    """A record as if its trial were judged by a further metric."""
    points = [replace(p, val_metric=p.costs.get(metric.val, math.nan), estimate=None) for p in record.points]
    return replace(record, points=points)


def _describe_promise(record: TrialRecord, best: float, metric: Metric) -> str:
    last, promised = record.last, metric.format(metric.value(best))
    return f"{metric.format(last.val_metric)} after round {last.round} promises {promised} at best"


def _describe_limit(limits: Constraints) -> str:
    side = "above" if limits.metric.better == "lower" else "below"
    return f"{side} the limit of {limits.metric.format(limits.limit)}"


class _Excess:
    """How much worse than the dense model's a metric is, as a cost.

    At least a hundredth of a point of error, one image in 10,000; of other metrics a fiftieth of the tradeoff, which is
    the same of the default tradeoff of errors.
    """

    def __init__(self, dense: float, limits: Constraints) -> None:
        self._cost = limits.metric.cost
        self._dense = self._cost(dense)
        tradeoff = limits.max_cost - self._dense
        self._least = 0.01 if limits.metric == ERROR else max(tradeoff / 50, 1e-9)

    def of_value(self, value: float) -> float:
        """The excess of a value of the metric."""
        return self.of_cost(self._cost(value))

    def of_cost(self, cost: float) -> float:
        """The excess of a value that is a cost already."""
        return max(cost - self._dense, self._least)


def _excess_ratios(record: TrialRecord, ended: Sequence[TrialRecord], excess: _Excess) -> list[float]:
    """The factors by which the excess of other trials changed from this round to their last."""
    found = []
    for other in ended:
        here = next((point for point in other.points if point.round == record.last.round), None)
        if other.state == "complete" and other.kind == record.kind and here is not None and here is not other.last:
            found.append(excess.of_value(other.last.judged) / excess.of_value(here.judged))
    return found


def _best(ratios: Sequence[float]) -> float:
    """The ratio that the `BEST_SHARE` of them does not exceed; of a few the least."""
    return sorted(ratios)[math.floor(BEST_SHARE * (len(ratios) - 1))]
