"""Every trial of a run: in the study from its beginning, and with its record from its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState, create_trial

from tune_prune.hpo.parameters import Parameter
from tune_prune.hpo.study import distributions, from_study_params, log_factor
from tune_prune.hpo.warm_start import WarmStart
from tune_prune.results import records
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import TrialRecord


class TrialStore:
    """The trials of a study by number, `records` of those that have ended among them.

    The study is the truth, and it is written here alone. What was written is remembered, for asking the study would
    copy all its trials. `limits` are what makes a trial feasible.
    """

    def __init__(
        self, study: optuna.Study, run_dir: Path, parameters: Mapping[str, Parameter], limits: Constraints
    ) -> None:
        self._study, self._run_dir, self._parameters, self._limits = study, run_dir, parameters, limits
        self._distributions = distributions(parameters)
        self._ids: dict[int, int] = {}  # in the storage
        self._drawn: dict[int, dict[str, Any]] = {}
        self._attrs: dict[int, dict[str, Any]] = {}
        self.records: dict[int, TrialRecord] = {}
        self.written: set[int] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take up what other processes have written."""
        for trial in self._study.get_trials(deepcopy=False):
            if trial.number not in self.records:
                self._enter(trial.number, trial._trial_id, dict(trial.params), dict(trial.user_attrs))
            if trial.state != TrialState.RUNNING:
                self.written.add(trial.number)

    def _enter(self, number: int, id_: int, drawn: dict[str, Any], attrs: dict[str, Any]) -> None:
        self._ids[number], self._drawn[number], self._attrs[number] = id_, drawn, attrs

    @property
    def numbers(self) -> list[int]:
        """Of all trials that were begun, in their order."""
        return list(self._attrs)

    @property
    def refinements(self) -> dict[int, int]:
        """Trials that finish another, begun or ended, and which."""
        return {number: attrs["refines"] for number, attrs in self._attrs.items() if "refines" in attrs}

    @property
    def checkpoints_in_use(self) -> set[str]:
        """The files that trials which have not ended begin at."""
        begun = [self.start_of(number) for number in self._attrs if number not in self.records]
        return {start.checkpoint for start in begun if start is not None}

    def attrs(self, number: int) -> Mapping[str, Any]:
        """What is noted of a trial: `queued`, `finishes`, `parent` and `parent_round`, `starts`, `let_through`."""
        return self._attrs[number]

    def study_params(self, number: int) -> dict[str, Any]:
        """A trial's parameters under the study's names."""
        return dict(self._drawn[number])

    def params(self, number: int) -> dict[str, Any]:
        """A trial's parameters under our names, with what is fixed."""
        return from_study_params(self._drawn[number], self._parameters)

    def start_of(self, number: int) -> WarmStart | None:
        """The round that a trial begins at; None means the dense model, as it does where the round's record is lost."""
        attrs = self._attrs[number]
        parent = self.records.get(attrs.get("parent", -1))
        if parent is None:
            return None
        begun = next(point for point in parent.points if point.round == attrs["parent_round"])
        return WarmStart.from_point(parent.trial, begun)

    def start(self, drawn: Mapping[str, Any], attrs: Mapping[str, Any]) -> int:
        """Put a trial with these parameters into the study, as running; its number."""
        # at one stroke, so that a process may be killed before or after it
        running = create_trial(
            state=TrialState.RUNNING,
            params=dict(drawn),
            distributions=self._distributions,
            user_attrs=dict(attrs),
        )
        # study.add_trial would not say which it is
        id_ = self._study._storage.create_new_trial(self._study._study_id, template_trial=running)
        number = self._study._storage.get_trial_number_from_id(id_)
        self._enter(number, id_, dict(drawn), dict(attrs))
        return number

    def set_attr(self, number: int, key: str, value: object) -> None:
        """Note something of a trial that runs; of one that runs again since its record is lost the study takes none."""
        if number not in self.written:
            Trial(self._study, self._ids[number]).set_user_attr(key, value)
        self._attrs[number][key] = value

    def read_record(self, number: int) -> TrialRecord | None:
        """The record that a trial's worker has written so far."""
        path = records.record_path(self._run_dir, number)
        return records.read(path) if path.is_file() else None

    def finish(self, record: TrialRecord) -> None:
        """Take up a record that has ended, and tell the study, if it does not know."""
        if record.trial not in self.written and record.state == "complete":
            # the constraint before the values: positive means infeasible
            trial = Trial(self._study, self._ids[record.trial])
            last = record.last
            for name, violation in self._limits.violations(last.val_error, last.costs).items():
                if name not in trial.constraints:  # set by a process that got no further
                    trial.set_constraint(name, violation)
            first = log_factor(last.compression)
            self._study.tell(record.trial, self._limits.values(first, last.val_error, last.costs))
        elif record.trial not in self.written:
            state = TrialState.PRUNED if record.state == "stopped" else TrialState.FAIL
            self._study.tell(record.trial, state=state)
        self.written.add(record.trial)
        self.records[record.trial] = record
