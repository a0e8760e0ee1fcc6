"""Optuna under Ray Tune: suggestions, first guesses, where trials begin, finishing, and going on after an interruption.

Ray's own OptunaSearch drops constraints without a word, tells a stopped trial as complete and cannot resume a study;
hence this one. The study is the one truth: it is written here alone, and Ray's snapshots of it are not used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState, create_trial
from ray.tune.search import Searcher

from tune_prune import ancestry, finishing, masks, records, stopping
from tune_prune.ancestry import Start
from tune_prune.budget import Budget
from tune_prune.knobs import Knob
from tune_prune.observations import Observations
from tune_prune.records import TrialRecord
from tune_prune.seeds import derive_seed
from tune_prune.space import Economy, Finish, ratios_of
from tune_prune.study import distributions, from_study, log_factor, to_study

MAX_STARTS = 3
"""A trial that took its process down this often is given up as failed."""

Guess = Mapping[str, object]


@dataclass(frozen=True)
class Goal:
    """What the searcher works for: within what budget, what error is allowed (percent), what is kept for finishing.

    `guesses` are tried first, and then `levels`, each more compressed than the one before, until one is too much.
    `totals` are the weights of each layer, `finish_seconds` what finishing a trial is thought to take.
    """

    budget: Budget
    dense_error: float
    limit: float
    finish: Finish
    guesses: Sequence[Guess] = ()
    levels: Sequence[Guess] = ()
    economy: Economy = field(default_factory=Economy)
    totals: Mapping[str, int] = field(default_factory=dict)
    finish_seconds: float = 0.0


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
        self._seed, self._on_change = seed, on_change
        self._distributions = distributions(knobs)
        self._observations = Observations(sampler, knobs, goal.limit)
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, int] = {}  # of trials in the storage
        self._drawn: dict[int, dict[str, Any]] = {}  # their parameters; asking the study would copy all trials
        self._attrs: dict[int, dict[str, Any]] = {}
        self.records: dict[int, TrialRecord] = {}
        self._again: list[int] = []
        self._stopped: dict[int, str] = {}
        self._take_up()
        self._before = self.started

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its searchers for snapshots, and the study is what a run resumes from."""
        return {}

    @property
    def started(self) -> int:
        """Trials begun, finished ones included."""
        return len(self._attrs)

    @property
    def running(self) -> int:
        """Trials that run now."""
        return len(self._numbers)

    @property
    def missing(self) -> float:
        """Trials that are still to be run to meet the budget; infinite where time alone ends it."""
        return self._goal.budget.missing(len(self.records))

    @property
    def finishing(self) -> dict[int, int]:
        """Trials that finish another, begun or ended, and which."""
        return {number: attrs["parent"] for number, attrs in self._attrs.items() if attrs.get("kind") == "finish"}

    @property
    def in_use(self) -> set[str]:
        """The files that trials which have not ended begin at."""
        begun = [self._start_of(number) for number in self._attrs if number not in self.records]
        return {start.checkpoint for start in begun if start is not None}

    # What Ray Tune calls

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of a trial: its number, seed and parameters, and the round that it begins at, if any."""
        number = self._restart()
        if number is None:
            number = self._ask()
        self._numbers[trial_id] = number
        self._on_change(self)
        attrs = self._attrs[number]
        config: dict[str, Any] = {"trial": number, "seed": derive_seed(self._seed, number)}
        config["params"] = from_study(self._drawn[number], self._knobs)
        config["kind"], config["start"] = attrs.get("kind", "explore"), self._start_of(number)
        if config["kind"] == "finish":
            finish = self._goal.finish
            config["params"] |= {"rounds": 1, "final_steps": finish.steps, "lr": finish.lr}
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A round ended; what it measured is in the trial's record."""
        self._on_change(self)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended: its record goes into the study. One that was only interrupted stays as it is."""
        number = self._numbers.pop(trial_id)
        path = records.path_of(self._run_dir, number)
        record = records.read(path) if path.is_file() else None
        if record is not None and number in self._stopped:
            record = replace(record, state="stopped", reason=self._stopped.pop(number))
            records.write(self._run_dir, record)
        if record is not None and record.state in records.FINAL:
            self._tell(self._marked(record))
        elif error:
            self._tell(self._fail(number, record, "its worker process died, again after each retry"))
        self._on_change(self)

    def judge(self, trial_id: str) -> bool:
        """Whether to stop a trial after the round that it has just ended."""
        number = self._numbers[trial_id]
        if not self._goal.economy.stop or self._attrs[number].keys() & {"let_through", "queued"}:
            return False  # what was asked for by name is seen through; `_levels_go_on` ends the levels
        record = records.read(records.path_of(self._run_dir, number))
        ended, goal = list(self.records.values()), self._goal
        said = stopping.verdict(
            record, self._compression(record), ended, goal.dense_error, goal.limit, finishing=goal.finish.share > 0
        )
        if said and derive_seed(self._seed, number, 2) % stopping.LET_THROUGH == 0:
            Trial(self._study, self._ids[number]).set_user_attr("let_through", said)
            self._attrs[number]["let_through"] = said
        elif said:
            self._stopped[number] = said
        return number in self._stopped

    def _compression(self, record: TrialRecord) -> float:
        """Where a trial is going."""
        ratios, totals = ratios_of(record.params), self._goal.totals
        return sum(masks.count_removed(ratio, totals[k]) for k, ratio in ratios.items()) / sum(totals.values())

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see `__getstate__`."""

    # The study

    def _take_up(self) -> None:
        """Go on where an earlier process stopped: tell what it had measured, run again what it had not."""
        for trial in self._study.get_trials(deepcopy=False):
            self._ids[trial.number], self._drawn[trial.number] = trial._trial_id, trial.params
            self._attrs[trial.number] = dict(trial.user_attrs)
            self._mirror(trial.number)
            path = records.path_of(self._run_dir, trial.number)
            record = records.read(path) if path.is_file() else None
            if record is not None and record.state in records.FINAL:
                self._tell(self._marked(record), known=trial.state != TrialState.RUNNING)
            elif trial.state == TrialState.RUNNING:
                if trial.user_attrs.get("starts", 1) >= MAX_STARTS:
                    self._tell(self._fail(trial.number, record, f"it was cut off {MAX_STARTS} times"))
                else:
                    self._again.append(trial.number)

    def _mirror(self, number: int) -> None:
        attrs = self._attrs[number]
        given = "queued" in attrs or attrs.get("kind") == "finish"
        self._observations.mirror(number, self._drawn[number], drawn=not given)

    def _draw_seed(self, number: int) -> int:
        # it follows from the number of trials: a resumed run draws what an uninterrupted one would have drawn
        return derive_seed(self._seed, number, 1)

    def _restart(self) -> int | None:
        """A trial that an earlier process had begun, under its number and with its parameters."""
        if not self._again:
            return None
        number = self._again.pop(0)
        Trial(self._study, self._ids[number]).set_user_attr("starts", self._attrs[number].get("starts", 1) + 1)
        return number

    def _ask(self) -> int:
        """Begin a trial: draw or take its parameters, choose where it begins, and put it into the study."""
        number = self.started
        given, attrs = self._next()
        drawn = self._observations.draw(number, self._draw_seed(number), given)
        if attrs.get("kind") != "finish":
            attrs |= self._inherited(drawn)
        # at one stroke, so that a process may be killed before or after it
        running = create_trial(
            state=TrialState.RUNNING, params=drawn, distributions=self._distributions, user_attrs=attrs
        )
        self._study.add_trial(running)
        newest = self._study.get_trials(deepcopy=False)[number]
        self._ids[number], self._drawn[number], self._attrs[number] = newest._trial_id, drawn, attrs
        return number

    def _next(self) -> tuple[dict[str, object] | None, dict[str, Any]]:
        """What the next trial is: its parameters where they are given, and what the study notes of it."""
        queued = sum("queued" in attrs for attrs in self._attrs.values())
        queue = [*self._goal.guesses, *self._goal.levels]
        if queued < len(self._goal.guesses) or (queued < len(queue) and self._levels_go_on()):
            return to_study(queue[queued]), {"queued": queued}
        finish = self._goal.finish
        budget = self._goal.budget.expected(self.started, self._before)
        if finishing.due(self.started, len(self.finishing), budget, finish.share) and self._time_to_finish():
            parent = self._worth_finishing()
            if parent is not None:
                start = {"parent": parent.trial, "parent_round": parent.last.round}
                return dict(self._drawn[parent.trial]), {"kind": "finish"} | start
        return None, {}

    def _time_to_finish(self) -> bool:
        """Whether a finishing trial would end in time, going by those that have ended."""
        took = [record.seconds for record in self.records.values() if record.kind == "finish"]
        return max(took, default=self._goal.finish_seconds) <= self._goal.budget.left

    def _levels_go_on(self) -> bool:
        """Whether no level that was tried is beyond what finishing is expected to bring below the limit."""
        levels = [n for n, attrs in self._attrs.items() if attrs.get("queued", -1) >= len(self._goal.guesses)]
        ended = [self.records[number] for number in levels if number in self.records]
        return all(record.points and record.last.val_error <= self._hopeful() for record in ended)

    def _worth_finishing(self) -> TrialRecord | None:
        known, taken, goal = list(self.records.values()), set(self.finishing.values()), self._goal
        gone = {r.trial for r in known if r.points and not self._there(str(r.last.checkpoint))}
        farthest = len(taken) % 2 == 1
        return finishing.choose(known, taken, goal.dense_error, goal.limit, gone=gone, farthest=farthest)

    def _inherited(self, drawn: Mapping[str, object]) -> dict[str, Any]:
        """Where a trial with these parameters begins, as the study notes it."""
        if not self._goal.economy.inherit:
            return {}
        ratios = ratios_of(from_study(drawn, self._knobs))
        start = ancestry.nearest(self.records.values(), ratios, self._hopeful(), self._there)
        return {} if start is None else {"parent": start.trial, "parent_round": start.round}

    def _start_of(self, number: int) -> Start | None:
        attrs = self._attrs[number]
        if "parent" not in attrs:
            return None
        parent = self.records[attrs["parent"]]
        return Start.at(parent, next(point for point in parent.points if point.round == attrs["parent_round"]))

    def _there(self, checkpoint: str) -> bool:
        return (self._run_dir / checkpoint).is_file()

    def _tell(self, record: TrialRecord, known: bool = False) -> None:
        """Take up a record that has ended; the study is told, unless it is `known` there already."""
        if not known and record.state == "complete":
            # the constraint before the values: positive means infeasible
            trial = Trial(self._study, self._ids[record.trial])
            trial.set_constraint("val_error - limit", record.last.val_error - self._goal.limit)
            self._study.tell(record.trial, [log_factor(record.last.compression), record.last.val_error])
        elif not known:
            state = TrialState.PRUNED if record.state == "stopped" else TrialState.FAIL
            self._study.tell(record.trial, state=state)
        self.records[record.trial] = record
        recovered = 1.0 if record.kind == "finish" else self._recovery()
        dense = self._goal.dense_error
        if not self._goal.economy.rounds:
            record = replace(record, points=record.points[-1:])
        self._observations.observe(record, [finishing.predicted(p.val_error, dense, recovered) for p in record.points])

    def _marked(self, record: TrialRecord) -> TrialRecord:
        """A trial's record, which says so if the trial was to be stopped and was let through."""
        said = self._attrs[record.trial].get("let_through")
        if said is None or record.state != "complete" or record.reason:
            return record
        record = replace(record, reason=f"{records.MARK}{said}")
        records.write(self._run_dir, record)
        return record

    def _recovery(self) -> float:
        """The share of an error above the dense model's that finishing is expected to leave; 1 where none is done."""
        if not self._goal.finish.share:
            return 1.0
        return finishing.recovery([*self.records.values()], self._goal.dense_error)

    def _hopeful(self) -> float:
        """The highest validation error that finishing is expected to bring down to the limit."""
        room = self._goal.limit - self._goal.dense_error
        return self._goal.dense_error + room / max(self._recovery(), 0.05)

    def _fail(self, number: int, record: TrialRecord | None, reason: str) -> TrialRecord:
        """The record of a trial that could not write one to its end."""
        attrs = self._attrs[number]
        params = from_study(self._drawn[number], self._knobs)
        failed = TrialRecord(
            number,
            "failed",
            params,
            {},
            record.points if record else [],
            reason,
            attrs.get("parent"),
            attrs.get("parent_round"),
            attrs.get("kind", "explore"),
        )
        records.write(self._run_dir, failed)
        return failed
