"""The trials of a run: started, ended, given up, and recovered where a process died. Ray is not involved.

The study is the truth (`trial_store.py`). A process may be killed anywhere in what follows: what it has not written is
run again, and what it has written is not.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.checkpoint_store import CheckpointStore
from tune_prune.hpo.early_stopping import EarlyStopping
from tune_prune.hpo.observations import Observations
from tune_prune.hpo.parameters import Parameter
from tune_prune.hpo.run_lock import RunLock, sole_process
from tune_prune.hpo.scheduler import TrialScheduler
from tune_prune.hpo.search_settings import SearchSettings
from tune_prune.hpo.trial_store import MAX_STARTS, TrialStore
from tune_prune.hpo.warm_start import WarmStart
from tune_prune.results import records
from tune_prune.results.estimates import Estimates
from tune_prune.results.records import TrialRecord
from tune_prune.results.trial_params import TrialParams


@dataclass(frozen=True)
class TrialConfig:
    """What a worker needs to run a trial: its number, seed and parameters, and the round that it starts from, if any.

    `refines` is the trial whose ratios it has, where it refines another; `is_initial` says that it was planned,
    `gradual` that it is a round of gradual pruning.
    """

    trial: int
    seed: int
    params: TrialParams
    refines: int | None = None
    start: WarmStart | None = None
    is_initial: bool = False
    gradual: bool = False


class Trials:
    """The trials of a search by their numbers, between an Optuna study and whoever runs them.

    `running` are the trials that this process runs now, `estimates` those of the trials that have ended.
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
        self._run_dir, self._settings, self._seed, self.parameters = run_dir, settings, seed, parameters
        self.estimates = Estimates(settings.limits, settings.samples)
        self._trial_store = TrialStore(study, run_dir, parameters, self.estimates)
        self._checkpoints = CheckpointStore(run_dir, self.estimates)
        self._scheduler = TrialScheduler(self._trial_store, self._checkpoints, parameters, settings)
        self.early_stopping = EarlyStopping(self._trial_store, run_dir, settings, seed)
        self._observations = Observations(sampler, parameters, settings.limits)
        self.running: set[int] = set()
        self._to_restart: list[int] = []
        self._cut_off: list[int] = []
        self._swept = 0
        with self._lock.exclusive():
            self._recover()

    @property
    def records(self) -> dict[int, TrialRecord]:
        """The records of trials that have ended, by number."""
        return self._trial_store.records

    @property
    def started(self) -> int:
        """How many trials were started, ended ones included."""
        return len(self._trial_store.numbers)

    @property
    def process(self) -> str | None:
        """The name of this process among those that share the study; None where it is the only one."""
        return self._lock.name

    @property
    def remaining(self) -> float:
        """How many trials are still to end to meet the budget; infinite where time alone ends the search."""
        return self._settings.budget.trials_left(len(self.records))

    @property
    def refinements(self) -> dict[int, int]:
        """The trials that refine another, started or ended, and which."""
        return self._trial_store.refinements

    @property
    def has_work(self) -> bool:
        """Whether this process has a trial to restart that another process left; never where it is the only one."""
        with self._exclusive():
            return bool(self._to_restart)

    # Start

    def start_next(self) -> int | None:
        """Starts a trial, or restarts one that was cut off; None where other processes run all that remain."""
        with self._exclusive():
            number = self._restart()
            if number is None and self.process and not self._settings.budget.trials_left(self.started):
                return None
            if number is None:
                number = self._start()
        self.running.add(number)
        return number

    def should_wait(self) -> bool:
        """Whether no trial can be started now, and one can once a round of gradual pruning has ended here."""
        return not self._to_restart and bool(self.running) and self._scheduler.should_wait()

    def worker_config(self, number: int) -> TrialConfig:
        """What a worker needs to run a trial."""
        attrs, seed = self._trial_store.attrs(number), derive_seed(self._seed, number)
        start, is_initial = self._trial_store.start_of(number), attrs.queued is not None
        params = self._scheduler.params(number)
        return TrialConfig(number, seed, params, attrs.refines, start, is_initial, attrs.gradual)

    def _restart(self) -> int | None:
        """A trial that was started before, under its number and with its parameters."""
        if not self._to_restart:
            return None
        number = self._to_restart.pop(0)
        self._trial_store.count_start(number)
        return number

    def _start(self) -> int:
        """Starts a trial: chooses or draws its parameters and its start, and puts it into the study."""
        number = self.started
        given, attrs = self._scheduler.choose_next()
        # the seed follows from the number of trials: a resumed run draws what an uninterrupted one would have drawn
        drawn = self._observations.draw(number, derive_seed(self._seed, number, 1), given)
        start = None if attrs.trains_long else self._scheduler.choose_warm_start(drawn)
        if start is not None:
            attrs = replace(attrs, parent=start.trial, parent_round=start.round)
        return self._trial_store.start(drawn, replace(attrs, process=self.process))

    # End

    def end(self, number: int, failure: str = "") -> bool:
        """Ends a trial that runs no more: its record enters the study. False where it was only cut off.

        `failure` is why the trial has failed, where its record does not say that it has ended.
        """
        self.running.discard(number)
        record = self._trial_store.read_record(number)
        if record is not None:
            record = self.early_stopping.mark_stopped(record)
        with self._exclusive():
            if record is not None and record.state in records.FINAL_STATES:
                self._finish(self.early_stopping.mark_exempt(record))
            elif failure:
                self._finish(self._fail(number, record, failure))
            else:
                self._trial_store.take_back_start(number)
                self._cut_off.append(number)
            self._sweep()
        return number in self.records

    def cut_off_running(self) -> None:
        """Cuts off the trials that still count as running: Ray does not report the end of some it has not started."""
        for number in self.running:
            self._trial_store.take_back_start(number)
        self._cut_off += self.running
        self.running = set()

    def restart_cut_off(self) -> None:
        """Restarts the trials that were cut off because one ran out of memory beside others."""
        self.cut_off_running()
        self._to_restart = sorted({*self._to_restart, *self._cut_off})
        self._cut_off = []

    def _finish(self, record: TrialRecord) -> None:
        """Enters the record of an ended trial into the study and shows its rounds to the sampler."""
        record = self._trial_store.finish(record)
        if not self._settings.features.learn_from_rounds:
            record = replace(record, points=record.points[-1:])
        expected = self._scheduler.with_expected_costs(record)
        self._observations.observe(expected, self._scheduler.expected_metrics(record))

    def _sweep(self) -> None:
        """Deletes weights that nothing needs any more, once all ended trials are known."""
        ended = itertools.islice(self.records.values(), self._swept, None)
        self._checkpoints.sweep(ended, self._trial_store.checkpoints_in_use)
        self._swept = len(self.records)

    def _fail(self, number: int, record: TrialRecord | None, reason: str) -> TrialRecord:
        """Writes the record of a trial whose worker could not write its end."""
        attrs = self._trial_store.attrs(number)
        failed = TrialRecord(
            number, "failed", self._scheduler.params(number), {}, record.points if record else [], reason,
            attrs.parent, attrs.parent_round, attrs.refines, attrs.gradual,
        )  # fmt: skip
        records.write(self._run_dir, failed)
        return failed

    # Recovery

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Excludes other processes, and reads first what they have done."""
        with self._lock.exclusive():
            if self.process is not None:
                self._trial_store.refresh()
                self._checkpoints.refresh()
                self._recover()
            yield

    def _recover(self) -> None:
        """Enters trials that have ended into the study, and queues for a restart those whose process has died.

        Trials of live processes are left alone.
        """
        mine = {*self._to_restart, *self.running}
        for number in self._trial_store.numbers:
            if number not in self._trial_store.records and number not in mine:
                self._recover_trial(number)
        self._sweep()

    def _recover_trial(self, number: int) -> None:
        attrs, written = self._trial_store.attrs(number), number in self._trial_store.written
        if number not in self._observations:
            self._observations.mirror(number, self._trial_store.study_params(number), drawn=not attrs.is_given)
        if not written and self._lock.is_alive(attrs.process):
            return
        record = self._trial_store.read_record(number)
        if record is not None and record.state in records.FINAL_STATES:
            self._finish(self.early_stopping.mark_exempt(record))
        elif not written and self._trial_store.is_given_up(number):
            self._finish(self._fail(number, record, f"it was cut off {MAX_STARTS} times in the same round"))
        else:  # cut off, or its record is lost
            if self.process:
                self._trial_store.set_attrs(number, process=self.process)
            self._to_restart.append(number)
