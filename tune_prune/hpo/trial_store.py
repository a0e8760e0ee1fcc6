"""The trials of a run: in the study from their beginning, with a record from their end."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from tune_prune.common.errors import UserError, format_names
from tune_prune.hpo.gradual_pruning import find_furthest
from tune_prune.hpo.parameters import Parameter
from tune_prune.hpo.storage import refuse_damage
from tune_prune.hpo.study import (
    add_running_trial,
    check_trial,
    describe_study,
    distributions,
    from_study_params,
    log_factor,
    trial_id,
)
from tune_prune.hpo.trial_attrs import TrialAttrs
from tune_prune.hpo.warm_start import WarmStart
from tune_prune.results import records
from tune_prune.results.constraints import COSTS
from tune_prune.results.estimates import Estimates
from tune_prune.results.records import TrialRecord
from tune_prune.results.trial_params import TrialParams

MAX_STARTS = 3
"""A trial whose process died this often in the same round is given up as failed."""


class TrialStore:
    """The trials of a study by number; `records` are those of ended trials, `written` the trials ended in the study.

    The study is the truth, and only this class writes it. What was written is remembered, since reading the study
    copies all its trials. Raises a `UserError` where a record is not of the study's trial of its number, as when an
    older copy of the study was put back.
    """

    def __init__(
        self, study: optuna.Study, run_dir: Path, parameters: Mapping[str, Parameter], estimates: Estimates
    ) -> None:
        self._study, self._run_dir, self._parameters, self.estimates = study, run_dir, parameters, estimates
        self._limits = estimates.limits
        self._distributions = distributions(parameters)
        self._ids: dict[int, int] = {}  # in the storage
        self._drawn: dict[int, dict[str, Any]] = {}
        self._attrs: dict[int, TrialAttrs] = {}
        self.records: dict[int, TrialRecord] = {}
        self.written: set[int] = set()
        found = records.read_all(run_dir)  # before the study: a trial enters it before it has a record
        self.refresh()
        for record in found:
            self._check_record(record)

    def refresh(self) -> None:
        """Reads what other processes have written to the study; a `UserError` where its rows are damaged."""
        with refuse_damage(describe_study(self._study)):
            for number, trial in enumerate(self._study.get_trials(deepcopy=False)):
                if number not in self._attrs:
                    check_trial(trial, number, self._distributions)
                if number not in self.records:
                    attrs = TrialAttrs.read(number, trial.user_attrs)
                    self._remember(number, trial_id(trial), dict(trial.params), attrs)
                if trial.state != TrialState.RUNNING:
                    self.written.add(number)

    def _check_record(self, record: TrialRecord) -> None:
        """Raises a `UserError` where a record is of another trial than the study has under its number."""
        number, path = record.trial, records.record_path(self._run_dir, record.trial)
        if number not in self._attrs:
            known = f"the study has {len(self._attrs)} trials, not this one, and so is older than its record"
            raise UserError(f"{path}: {known}; put the newest study back, or delete the records that it lacks")
        fault = self._find_unmeasured(record)
        if fault:
            raise UserError(f"{path}: damaged trial record ({fault}); delete it and its trial is run again")
        drawn, measured, attrs = self.params(number), record.params, self.attrs(number)
        if attrs.trains_long:
            drawn, measured = replace(drawn, training={}), replace(measured, training={})
        if measured != drawn or record.refines != attrs.refines or record.gradual != attrs.gradual:
            theirs, ours = drawn.to_columns(), measured.to_columns()
            differs = format_names(
                [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)] or ["refines"]
            )
            fault = f"the study has another trial {number} ({differs} differ)"
            advice = "put the study of this record back, or delete the record and its trial is run again"
            raise UserError(f"{path}: {fault}; {advice}")

    def _find_unmeasured(self, record: TrialRecord) -> str:
        """Says what the rounds of a record lack that enters the study; empty where they lack nothing."""
        if record.state == "complete" and not (record.points and math.isfinite(record.last.val_metric)):
            return f"it is complete, and its last round has no {self._limits.metric.name}"
        for point in record.points:
            limits = self._limits
            names = (*limits.at_most, *limits.at_least, *limits.objectives)
            numbers = {name: point.costs.get(name, math.nan) for name in names}
            # a metric may be no number, which keeps no limit
            numbers |= dict.fromkeys(point.costs.keys() - COSTS.keys(), 0.0)
            numbers |= {"compression": point.compression} | {f"ratio/{layer}": r for layer, r in point.ratios.items()}
            missing = [name for name, number in numbers.items() if not math.isfinite(number)]
            if missing:
                return f"round {point.round} has no {format_names(missing)}"
        return ""

    def _remember(self, number: int, id_: int, drawn: dict[str, Any], attrs: TrialAttrs) -> None:
        self._ids[number], self._drawn[number], self._attrs[number] = id_, drawn, attrs

    @property
    def numbers(self) -> list[int]:
        """The numbers of all trials that were started, ascending."""
        return list(self._attrs)

    @property
    def refinements(self) -> dict[int, int]:
        """The trials that refine another, started or ended, and which."""
        return {number: attrs.refines for number, attrs in self._attrs.items() if attrs.refines is not None}

    @property
    def checkpoints_in_use(self) -> set[str]:
        """The files from which trials that have not ended start, and that from which gradual pruning goes on."""
        starts = [self.start_of(number) for number in self._attrs if number not in self.records]
        furthest = find_furthest(self.estimates.records[n] for n in self.gradual if n in self.estimates.records)
        going_on = furthest.last.checkpoint if furthest else None
        used = {start.checkpoint for start in starts if start is not None}
        return used | {going_on} if going_on else used

    @property
    def gradual(self) -> list[int]:
        """The trials that are rounds of gradual pruning, started or ended, in their order."""
        return [number for number, attrs in self._attrs.items() if attrs.gradual]

    def attrs(self, number: int) -> TrialAttrs:
        """What the study notes of a trial."""
        return self._attrs[number]

    def study_params(self, number: int) -> dict[str, Any]:
        """A trial's parameters under the study's names, without those that are fixed."""
        return dict(self._drawn[number])

    def params(self, number: int) -> TrialParams:
        """A trial's parameters, with those that are fixed."""
        return from_study_params(self._drawn[number], self._parameters)

    def start_of(self, number: int) -> WarmStart | None:
        """The round that a trial starts from; None means the dense model, also where the round is lost."""
        attrs = self._attrs[number]
        parent = None if attrs.parent is None else self.records.get(attrs.parent)
        if parent is None:
            return None
        point = next((point for point in parent.points if point.round == attrs.parent_round), None)
        return None if point is None or point.checkpoint is None else WarmStart.from_point(parent.trial, point)

    def start(self, drawn: Mapping[str, Any], attrs: TrialAttrs) -> int:
        """Puts a trial with these parameters, under the study's names, into the study as running; its number.

        Raises a `RuntimeError` where another process has added a trial meanwhile, and leaves none running.
        """
        number, id_ = add_running_trial(self._study, drawn, self._distributions, attrs.to_dict())
        if number != len(self._attrs):
            self._study.tell(number, state=TrialState.FAIL)
            reason = f"another process started trial {len(self._attrs)} at the same time"
            raise RuntimeError(f"{self._run_dir}: {reason}: locks on its files do not hold there")
        self._remember(number, id_, dict(drawn), attrs)
        return number

    def set_attrs(self, number: int, **values: Any) -> None:
        """Changes attributes of a trial; the study takes none of a trial that is complete and runs again."""
        changed = {key: value for key, value in values.items() if value != getattr(self._attrs[number], key)}
        if number not in self.written:
            for key, value in changed.items():
                Trial(self._study, self._ids[number]).set_user_attr(key, value)
        self._attrs[number] = replace(self._attrs[number], **changed)

    def count_start(self, number: int) -> None:
        """Counts another start of a trial; a round that was recorded since the last one begins the count anew."""
        rounds = self._recorded_rounds(number)
        starts = self._attrs[number].starts + 1 if rounds == self._attrs[number].rounds_before else 1
        self.set_attrs(number, rounds_before=rounds, starts=starts)

    def take_back_start(self, number: int) -> None:
        """Counts the last start of a trial no more: the trial was cut off in order, its process did not die."""
        self.set_attrs(number, starts=self._attrs[number].starts - 1)

    def is_given_up(self, number: int) -> bool:
        """Whether a trial was cut off `MAX_STARTS` times in the same round."""
        attrs = self._attrs[number]
        return attrs.starts >= MAX_STARTS and attrs.rounds_before == self._recorded_rounds(number)

    def _recorded_rounds(self, number: int) -> int:
        """How many rounds a trial's record holds so far."""
        return len(record.points) if (record := self.read_record(number)) else 0

    def read_record(self, number: int) -> TrialRecord | None:
        """The record that a trial's worker has written so far."""
        path = records.record_path(self._run_dir, number)
        return records.read(path) if path.is_file() else None

    def finish(self, record: TrialRecord) -> TrialRecord:
        """Keeps the record of an ended trial, ends it in the study as well, and returns it with estimates."""
        if record.trial not in self.written and record.state == "complete":
            # the constraint before the values: positive means infeasible
            trial = Trial(self._study, self._ids[record.trial])
            last = record.last
            for name, violation in self._limits.violations(last.val_metric, last.costs).items():
                if name not in trial.constraints:  # set by a process that got no further
                    trial.set_constraint(name, violation)
            values = self._limits.values(log_factor(last.compression), last.val_metric, last.costs)
            self._study.tell(record.trial, values)
        elif record.trial not in self.written:
            state = TrialState.PRUNED if record.state == "stopped" else TrialState.FAIL
            self._study.tell(record.trial, state=state)
        self.written.add(record.trial)
        self.records[record.trial] = record
        return self.estimates.add(record)
