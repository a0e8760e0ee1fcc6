"""When a trial is not worth going on with: two rules, both learned from the run's own trials.

How errors go on after a round, and what finishing wins back, is taken from the trials that have ended: at its best in
ten. A trial is stopped where even so it would end above the limit, or behind what the front has at its compression.

Which trials are stopped, which of them are let through to learn from, and when too many have failed.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.refinement import ASSUMED_RECOVERY, refined_pairs
from tune_prune.hpo.scheduler import SearchSettings
from tune_prune.hpo.space import ratios_of
from tune_prune.hpo.trial_store import TrialStore
from tune_prune.results import records
from tune_prune.results.records import TrialRecord

MIN_COMPARED = 8
"""Trials that must have gone on from a round before any is stopped there."""

BEST_SHARE = 0.1
"""The share of trials whose course is taken for the best that can be hoped for."""

EXEMPT_ONE_IN = 8
"""One in so many of the trials that would be stopped goes on, to measure what stopping costs."""


def reason_to_stop(
    record: TrialRecord,
    compression: float,
    ended: Sequence[TrialRecord],
    dense_error: float,
    limit: float,
    refining: bool = False,
) -> str:
    """Why a trial should be stopped after its last round so far, or nothing.

    `compression` is where the trial is going, `ended` the others, errors in percent. `finishing` says that trials are
    finished in this run: until one was, what it wins back is assumed.
    """
    now = record.last
    onward = _error_ratios(record, ended, dense_error)
    finished = [_excess(pair.after, dense_error) / _excess(pair.before, dense_error) for pair in refined_pairs(ended)]
    if len(onward) < MIN_COMPARED or record.kind == "refine":
        return ""
    best = _excess(now.val_error, dense_error) * _quantile(onward)
    if finished or refining:
        best *= min(1.0, _quantile(finished or [ASSUMED_RECOVERY]))
    hoped = dense_error + best
    said = f"{now.val_error:.2f} % after round {now.round} promises {hoped:.2f} % at best"
    if hoped > limit:
        return f"{said}, above the limit of {limit:.2f} %"
    there = [p.val_error for r in ended for p in r.points if p.feasible and p.compression >= compression]
    if there and hoped > min(there):
        return f"{said}; {min(there):.2f} % is reached at its compression"
    return ""


def _error_ratios(record: TrialRecord, ended: Sequence[TrialRecord], dense_error: float) -> list[float]:
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
    return sorted(values)[math.floor(BEST_SHARE * (len(values) - 1))]


MIN_ENDED = 6
"""Trials that have to have ended before their failures end a search."""


class EarlyStopping:
    """Judges trials after each of their rounds, and writes into the records of those that end what it judged."""

    def __init__(self, trial_store: TrialStore, run_dir: Path, settings: SearchSettings, seed: int) -> None:
        self._trial_store, self._run_dir, self._settings, self._seed = trial_store, run_dir, settings, seed
        self._stopped: dict[int, str] = {}

    def should_stop(self, number: int) -> bool:
        """Whether to stop a trial after the round that it has just ended."""
        settings = self._settings
        if not settings.features.early_stopping or self._trial_store.attrs(number).keys() & {"exempt", "queued"}:
            return False  # what was asked for by name is seen through; levels are ended by `Turns`
        record = self._trial_store.read_record(number)
        assert record is not None
        refines = settings.refine.share > 0
        ended = list(self._trial_store.records.values())
        going = settings.compression(ratios_of(record.params))
        said = reason_to_stop(record, going, ended, settings.dense_error, settings.limit, refines)
        if said and derive_seed(self._seed, number, 2) % EXEMPT_ONE_IN == 0:
            self._trial_store.set_attr(number, "exempt", said)
        elif said:
            self._stopped[number] = said
        return number in self._stopped

    def mark_stopped(self, record: TrialRecord) -> TrialRecord:
        """The record of a trial that is over, which says so if the trial was stopped."""
        if record.trial not in self._stopped:
            return record
        return self._written(replace(record, state="stopped", reason=self._stopped.pop(record.trial)))

    def mark_exempt(self, record: TrialRecord) -> TrialRecord:
        """The record of a trial that has ended, which says so if the trial was to be stopped and was let through."""
        said = self._trial_store.attrs(record.trial).get("exempt")
        if said is None or record.state != "complete" or record.reason:
            return record
        return self._written(replace(record, reason=f"{records.EXEMPT_PREFIX}{said}"))

    def _written(self, record: TrialRecord) -> TrialRecord:
        records.write(self._run_dir, record)
        return record

    def failure_reason(self) -> str:
        """Why to end the search before its budget, or nothing: more trials have failed than may."""
        ended, most = len(self._trial_store.records), self._settings.max_failures
        failed = [record for record in self._trial_store.records.values() if record.state == "failed"]
        if ended < MIN_ENDED or len(failed) <= most * ended:
            return ""
        return (
            f"{len(failed)} of {ended} trials failed, more than --max-failures {most:g}; the last: {failed[-1].reason}"
        )
