"""The trials of a run: begun, ended, given up, and taken up again where a process stopped. No Ray in it.

The study is the one truth (`ledger.py`). What follows here is written so that a process may be killed anywhere in it.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo import refinement
from tune_prune.hpo.checkpoint_store import CheckpointStore
from tune_prune.hpo.early_stopping import EarlyStopping
from tune_prune.hpo.observations import Observations
from tune_prune.hpo.parameters import Parameter
from tune_prune.hpo.run_lock import RunLock, sole_process
from tune_prune.hpo.scheduler import SearchSettings, TrialScheduler
from tune_prune.hpo.trial_store import TrialStore
from tune_prune.results import records
from tune_prune.results.records import TrialRecord

MAX_STARTS = 3
"""A trial that took its process down this often is given up as failed."""


class Trials:
    """What an Optuna study is asked for and told, of trials by their numbers; error and constraint in percent.

    `running` are those that this process runs now.
    """

    def __init__(
        self,
        study: optuna.Study,
        run_dir: Path,
        parameters: Mapping[str, Parameter],
        settings: SearchSettings,
        sampler: str,
        seed: int,
        lock: RunLock | None = None,
    ) -> None:
        self._lock = lock or sole_process(run_dir)
        self._run_dir, self._settings, self._seed = run_dir, settings, seed
        self._trial_store = TrialStore(study, run_dir, parameters, settings.limits)
        self._checkpoints = CheckpointStore(run_dir, settings.limits)
        self._scheduler = TrialScheduler(self._trial_store, self._checkpoints, parameters, settings)
        self.early_stopping = EarlyStopping(self._trial_store, run_dir, settings, seed)
        self._observations = Observations(sampler, parameters, settings.limits)
        self.running: set[int] = set()
        self._to_restart: list[int] = []
        self._interrupted: list[int] = []
        self._swept = 0
        with self._lock.exclusive():
            self._recover()

    @property
    def records(self) -> dict[int, TrialRecord]:
        """The records of trials that have ended, by number."""
        return self._trial_store.records

    @property
    def started(self) -> int:
        """Trials begun, finished ones included."""
        return len(self._trial_store.numbers)

    @property
    def process(self) -> str | None:
        """What this process is called among those that may run trials of the study; None where it is the only one."""
        return self._lock.name

    @property
    def remaining(self) -> float:
        """Trials that are still to be run to meet the budget; infinite where time alone ends it."""
        return self._settings.budget.trials_left(len(self.records))

    @property
    def refinements(self) -> dict[int, int]:
        """Trials that finish another, begun or ended, and which."""
        return self._trial_store.refinements

    @property
    def has_work(self) -> bool:
        """Whether this process has a trial to begin, once others have gone on; never where it is the only one."""
        with self._exclusive():
            return bool(self._to_restart)

    # Begun

    def start_next(self) -> int | None:
        """Begin a trial, or one again that was cut off; None where other processes run all that are missing."""
        with self._exclusive():
            number = self._restart()
            if number is None and self.process and not self._settings.budget.trials_left(self.started):
                return None
            if number is None:
                number = self._start()
        self.running.add(number)
        return number

    def worker_config(self, number: int) -> dict[str, Any]:
        """What its worker needs of a trial: number, seed and parameters, and the round that it begins at, if any."""
        return {
            "trial": number,
            "seed": derive_seed(self._seed, number),
            "params": self._params(number),
            "refines": self._trial_store.attrs(number).get("refines"),
            "start": self._trial_store.start_of(number),
        }

    def _params(self, number: int) -> dict[str, Any]:
        """A trial's parameters; one that finishes another has the other's, but for how it trains."""
        params = self._trial_store.params(number)
        if "refines" not in self._trial_store.attrs(number):
            return params
        start = self._trial_store.start_of(number)
        return refinement.refinement_params(self._settings.refine, params, start.ratios if start else {})

    def _restart(self) -> int | None:
        """A trial that was begun before, under its number and with its parameters."""
        if not self._to_restart:
            return None
        number = self._to_restart.pop(0)
        self._trial_store.set_attr(number, "starts", self._trial_store.attrs(number).get("starts", 1) + 1)
        return number

    def _start(self) -> int:
        """Begin a trial: draw or take its parameters, choose where it begins, and put it into the study."""
        number = self.started
        given, attrs = self._scheduler.choose_next()
        # it follows from the number of trials: a resumed run draws what an uninterrupted one would have drawn
        drawn = self._observations.draw(number, derive_seed(self._seed, number, 1), given)
        if "refines" not in attrs:
            attrs |= self._scheduler.choose_warm_start(drawn)
        if self.process:
            attrs["by"] = self.process
        begun = self._trial_store.start(drawn, attrs)
        if begun != number:
            told = f"another process began trial {number} at the same time: locks on its files do not hold there"
            raise RuntimeError(f"{self._run_dir}: {told}")
        return number

    # Ended

    def end(self, number: int, failure: str = "") -> bool:
        """A trial is over: its record goes into the study, but of one that was only cut off. Whether it has ended.

        `failure` says why it has failed, where its record does not say that it has ended.
        """
        self.running.discard(number)
        record = self._trial_store.read_record(number)
        if record is not None:
            record = self.early_stopping.mark_stopped(record)
        with self._exclusive():
            if record is not None and record.state in records.FINAL_STATES:
                self._finish(self.early_stopping.mark_exempt(record))
            elif failure:
                self._finish(self._failed(number, record, failure))
            else:
                self._interrupted.append(number)
            self._sweep()
        return number in self.records

    def restart_interrupted(self) -> None:
        """Run again the trials that were cut off since one found no room beside others; it is no fault of theirs."""
        cut = {*self._interrupted, *self.running}  # of some that have not begun Ray does not say that they are over
        for number in cut:
            self._trial_store.set_attr(number, "starts", self._trial_store.attrs(number).get("starts", 1) - 1)
        self._to_restart = sorted({*self._to_restart, *cut})
        self.running, self._interrupted = set(), []

    def _finish(self, record: TrialRecord) -> None:
        """Take up a record that has ended."""
        self._trial_store.finish(record)
        if not self._settings.features.learn_from_rounds:
            record = replace(record, points=record.points[-1:])
        self._observations.observe(record, self._scheduler.expected(record))

    def _sweep(self) -> None:
        """Delete the weights that nothing needs any more; not before all that has ended is known."""
        new = itertools.islice(self.records.values(), self._swept, None)
        self._checkpoints.sweep(new, self._trial_store.checkpoints_in_use)
        self._swept = len(self.records)

    def _failed(self, number: int, record: TrialRecord | None, reason: str) -> TrialRecord:
        """The record of a trial that could not write one to its end."""
        attrs = self._trial_store.attrs(number)
        failed = TrialRecord(
            number, "failed", self._params(number), {}, record.points if record else [], reason,
            attrs.get("parent"), attrs.get("parent_round"), attrs.get("refines"),
        )  # fmt: skip
        records.write(self._run_dir, failed)
        return failed

    # Taken up

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """This process's turn, with what others have done since its last one taken up."""
        with self._lock.exclusive():
            if self.process is not None:
                self._trial_store.refresh()
                self._checkpoints.refresh()
                self._recover()
            yield

    def _recover(self) -> None:
        """Take up what has ended; go on where a process stopped: tell what it had measured, run again what it had not.

        What a process does that is alive is its own.
        """
        mine = {*self._to_restart, *self.running}
        for number in self._trial_store.numbers:
            if number in self._trial_store.records or number in mine:
                continue
            attrs = self._trial_store.attrs(number)
            if number not in self._observations:
                given = bool(attrs.keys() & {"queued", "refines"})
                self._observations.mirror(number, self._trial_store.study_params(number), drawn=not given)
            told = number in self._trial_store.written
            if not told and self._lock.is_alive(attrs.get("by")):
                continue
            record = self._trial_store.read_record(number)
            if record is not None and record.state in records.FINAL_STATES:
                self._finish(self.early_stopping.mark_exempt(record))
            elif not told and attrs.get("starts", 1) >= MAX_STARTS:
                self._finish(self._failed(number, record, f"it was cut off {MAX_STARTS} times"))
            else:  # cut off, or its record is lost
                if self.process:
                    self._trial_store.set_attr(number, "by", self.process)
                self._to_restart.append(number)
        self._sweep()
