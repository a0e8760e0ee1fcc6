"""Optuna under Ray Tune: suggestions, first guesses, finishing, constraints, and going on after an interruption.

Ray's own OptunaSearch drops constraints without a word, tells a stopped trial as complete and cannot resume a study;
hence this one. The study is the one truth: it is written here alone, and Ray's snapshots of it are not used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from tune_prune import finishing, records
from tune_prune.knobs import Knob
from tune_prune.records import TrialRecord
from tune_prune.seeds import derive_seed
from tune_prune.space import Finish
from tune_prune.study import distributions, from_study, log_factor, make_sampler, to_study

MAX_STARTS = 3
"""A trial that took its process down this often is given up as failed."""


@dataclass(frozen=True)
class Goal:
    """What the searcher works for: how many trials, what error is allowed (percent), what is kept for finishing."""

    budget: int
    dense_error: float
    limit: float
    finish: Finish


class StudySearcher(Searcher):
    """Asks an Optuna study for trials and tells it what their records say; error and constraint in percent."""

    def __init__(
        self,
        study: optuna.Study,
        run_dir: Path,
        knobs: Mapping[str, Knob],
        goal: Goal,
        sampler: str,
        seed: int,
        on_change: Callable[["StudySearcher"], None],
    ) -> None:
        super().__init__()
        self._study, self._run_dir, self._knobs, self._goal = study, run_dir, knobs, goal
        self._sampler, self._seed, self._on_change = sampler, seed, on_change
        self._distributions = distributions(knobs)
        self._numbers: dict[str, int] = {}
        self.records: dict[int, TrialRecord] = {}
        self.parents: dict[int, int] = {}
        self._again: list[int] = []
        self._take_up()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its searchers for snapshots, and the study is what a run resumes from."""
        return {}

    def enqueue(self, guesses: list[dict[str, object]]) -> None:
        """Put known results and first guesses into the queue; one that is there already is left out."""
        for guess in guesses:
            self._study.enqueue_trial(to_study(guess), skip_if_exists=True)

    @property
    def started(self) -> int:
        """Trials begun, finished ones included."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING, *_ENDED)))

    @property
    def running(self) -> int:
        """Trials that run now."""
        return len(self._numbers)

    @property
    def missing(self) -> int:
        """Trials that are still to be run to meet the budget."""
        return max(0, self._goal.budget - len(self.records))

    # What Ray Tune calls

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of a trial: its number, parameters, and the parent that it finishes, if any."""
        trial = self._restart() or self._ask()
        self._numbers[trial_id] = trial.number
        self._on_change(self)
        config: dict[str, Any] = {"trial": trial.number, "seed": derive_seed(self._seed, trial.number)}
        config["params"] = from_study(trial.params, self._knobs)
        parent = trial.user_attrs.get("parent")
        if parent is not None:
            finish = self._goal.finish
            config["parent"], config["start"] = parent, self.records[parent].last.checkpoint
            own = {"rounds": 1, "final_steps": finish.steps, "lr": finish.lr}
            # how the parent was made stays in the record, so that its configuration can be replayed
            before = {f"parent/{key}": config["params"][key] for key in own if key in config["params"]}
            config["params"] |= own | before
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A round ended; what it measured is in the trial's record."""
        self._on_change(self)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended: its record goes into the study. One that was only interrupted stays as it is."""
        number = self._numbers.pop(trial_id)
        path = records.path_of(self._run_dir, number)
        record = records.read(path) if path.is_file() else None
        if record is not None and record.state in records.FINAL:
            self._tell(record)
        elif error:
            self._tell(self._fail(number, record, "its worker process died, again after each retry"))
        self._on_change(self)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see `__getstate__`."""

    # The study

    def _take_up(self) -> None:
        """Go on where an earlier process stopped: tell what it had measured, run again what it had not."""
        for trial in self._study.get_trials(deepcopy=False):
            path = records.path_of(self._run_dir, trial.number)
            record = records.read(path) if path.is_file() else None
            if "parent" in trial.user_attrs:
                self.parents[trial.number] = trial.user_attrs["parent"]
            if record is not None and record.state in records.FINAL:
                if trial.state == TrialState.RUNNING:
                    self._tell(record)
                self.records[trial.number] = record
            elif trial.state == TrialState.RUNNING:
                if trial.user_attrs.get("starts", 1) >= MAX_STARTS:
                    self._tell(self._fail(trial.number, record, f"it was cut off {MAX_STARTS} times"))
                else:
                    self._again.append(trial.number)

    def _restart(self) -> Trial | None:
        """A trial that an earlier process had begun, under its number and with its parameters."""
        if not self._again:
            return None
        frozen = self._study.trials[self._again.pop(0)]
        trial = Trial(self._study, frozen._trial_id)
        trial.set_user_attr("starts", frozen.user_attrs.get("starts", 1) + 1)
        return trial

    def _ask(self) -> Trial:
        started = self.started
        # the seed follows from the number of trials: a resumed run draws what an uninterrupted one would have drawn
        self._study.sampler = make_sampler(self._sampler, derive_seed(self._seed, started, 1))
        queued = bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
        due = finishing.due(started, len(self.parents), self._goal.budget, self._goal.finish.share)
        if due and not queued:
            self._enqueue_finish()
        trial = self._study.ask(self._distributions)
        if "parent" in trial.user_attrs:
            self.parents[trial.number] = trial.user_attrs["parent"]
        return trial

    def _enqueue_finish(self) -> None:
        known, taken, goal = list(self.records.values()), set(self.parents.values()), self._goal
        gone = {r.trial for r in known if r.points and not (self._run_dir / str(r.last.checkpoint)).is_file()}
        farthest = len(taken) % 2 == 1
        parent = finishing.choose(known, taken, goal.dense_error, goal.limit, gone=gone, farthest=farthest)
        if parent is not None:
            params = self._study.trials[parent.trial].params
            self._study.enqueue_trial(params, user_attrs={"parent": parent.trial})

    def _tell(self, record: TrialRecord) -> None:
        """Tell the study a trial's record, the constraint before the values: positive means infeasible."""
        if record.state == "complete":
            frozen = self._study.trials[record.trial]
            violation = self._expected_error(record) - self._goal.limit
            Trial(self._study, frozen._trial_id).set_constraint("expected val_error - limit", violation)
            self._study.tell(record.trial, [log_factor(record.last.compression), record.last.val_error])
        else:
            self._study.tell(record.trial, state=TrialState.FAIL)
        self.records[record.trial] = record

    def _expected_error(self, record: TrialRecord) -> float:
        """What the constraint is held against: what was measured, or what finishing is expected to make of it.

        Where trials are finished, one that was not is judged as if it were: its short retraining says too little of
        what its ratios can reach, and the sampler would learn to prune timidly.
        """
        dense = self._goal.dense_error
        finished = record.parent is not None or self._goal.finish.share == 0
        recovered = 1.0 if finished else finishing.recovery([*self.records.values()], dense)
        return finishing.predicted(record.last.val_error, dense, recovered)

    def _fail(self, number: int, record: TrialRecord | None, reason: str) -> TrialRecord:
        """The record of a trial that could not write one to its end."""
        params = from_study(self._study.trials[number].params, self._knobs)
        points = record.points if record else []
        failed = TrialRecord(number, "failed", params, {}, points, reason, self.parents.get(number))
        records.write(self._run_dir, failed)
        return failed


_ENDED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
