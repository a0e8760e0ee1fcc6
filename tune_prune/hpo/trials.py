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
        knobs: Mapping[str, Parameter],
        goal: SearchSettings,
        sampler: str,
        seed: int,
        company: RunLock | None = None,
    ) -> None:
        self._company = company or sole_process(run_dir)
        self._run_dir, self._goal, self._seed = run_dir, goal, seed
        self._ledger = TrialStore(study, run_dir, knobs, goal.limits)
        self._store = CheckpointStore(run_dir, goal.limits)
        self._turns = TrialScheduler(self._ledger, self._store, knobs, goal)
        self.judge = EarlyStopping(self._ledger, run_dir, goal, seed)
        self._observations = Observations(sampler, knobs, goal.limits)
        self.running: set[int] = set()
        self._again: list[int] = []
        self._cut: list[int] = []
        self._swept = 0
        with self._company.turn():
            self._take_up()

    @property
    def records(self) -> dict[int, TrialRecord]:
        """The records of trials that have ended, by number."""
        return self._ledger.records

    @property
    def started(self) -> int:
        """Trials begun, finished ones included."""
        return len(self._ledger.numbers)

    @property
    def process(self) -> str | None:
        """What this process is called among those that may run trials of the study; None where it is the only one."""
        return self._company.name

    @property
    def missing(self) -> float:
        """Trials that are still to be run to meet the budget; infinite where time alone ends it."""
        return self._goal.budget.missing(len(self.records))

    @property
    def finishing(self) -> dict[int, int]:
        """Trials that finish another, begun or ended, and which."""
        return self._ledger.finishing

    @property
    def anything_to_do(self) -> bool:
        """Whether this process has a trial to begin, once others have gone on; never where it is the only one."""
        with self._turn():
            return bool(self._again)

    # Begun

    def next(self) -> int | None:
        """Begin a trial, or one again that was cut off; None where other processes run all that are missing."""
        with self._turn():
            number = self._restart()
            if number is None and self.process and not self._goal.budget.missing(self.started):
                return None
            if number is None:
                number = self._begin()
        self.running.add(number)
        return number

    def config(self, number: int) -> dict[str, Any]:
        """What its worker needs of a trial: number, seed and parameters, and the round that it begins at, if any."""
        return {
            "trial": number,
            "seed": derive_seed(self._seed, number),
            "params": self._params(number),
            "finishes": self._ledger.attrs(number).get("finishes"),
            "start": self._ledger.start_of(number),
        }

    def _params(self, number: int) -> dict[str, Any]:
        """A trial's parameters; one that finishes another has the other's, but for how it trains."""
        params = self._ledger.params(number)
        if "finishes" not in self._ledger.attrs(number):
            return params
        start = self._ledger.start_of(number)
        return refinement.refinement_params(self._goal.finish, params, start.ratios if start else {})

    def _restart(self) -> int | None:
        """A trial that was begun before, under its number and with its parameters."""
        if not self._again:
            return None
        number = self._again.pop(0)
        self._ledger.note(number, "starts", self._ledger.attrs(number).get("starts", 1) + 1)
        return number

    def _begin(self) -> int:
        """Begin a trial: draw or take its parameters, choose where it begins, and put it into the study."""
        number = self.started
        given, attrs = self._turns.next()
        # it follows from the number of trials: a resumed run draws what an uninterrupted one would have drawn
        drawn = self._observations.draw(number, derive_seed(self._seed, number, 1), given)
        if "finishes" not in attrs:
            attrs |= self._turns.inherited(drawn)
        if self.process:
            attrs["by"] = self.process
        begun = self._ledger.begin(drawn, attrs)
        if begun != number:
            told = f"another process began trial {number} at the same time: locks on its files do not hold there"
            raise RuntimeError(f"{self._run_dir}: {told}")
        return number

    # Ended

    def over(self, number: int, failure: str = "") -> bool:
        """A trial is over: its record goes into the study, but of one that was only cut off. Whether it has ended.

        `failure` says why it has failed, where its record does not say that it has ended.
        """
        self.running.discard(number)
        record = self._ledger.saved(number)
        if record is not None:
            record = self.judge.stopped(record)
        with self._turn():
            if record is not None and record.state in records.FINAL_STATES:
                self._end(self.judge.marked(record))
            elif failure:
                self._end(self._failed(number, record, failure))
            else:
                self._cut.append(number)
            self._sweep()
        return number in self.records

    def begin_again(self) -> None:
        """Run again the trials that were cut off since one found no room beside others; it is no fault of theirs."""
        cut = {*self._cut, *self.running}  # of some that have not begun Ray does not say that they are over
        for number in cut:
            self._ledger.note(number, "starts", self._ledger.attrs(number).get("starts", 1) - 1)
        self._again = sorted({*self._again, *cut})
        self.running, self._cut = set(), []

    def _end(self, record: TrialRecord) -> None:
        """Take up a record that has ended."""
        self._ledger.end(record)
        if not self._goal.economy.rounds:
            record = replace(record, points=record.points[-1:])
        self._observations.observe(record, self._turns.expected(record))

    def _sweep(self) -> None:
        """Delete the weights that nothing needs any more; not before all that has ended is known."""
        new = itertools.islice(self.records.values(), self._swept, None)
        self._store.sweep(new, self._ledger.in_use)
        self._swept = len(self.records)

    def _failed(self, number: int, record: TrialRecord | None, reason: str) -> TrialRecord:
        """The record of a trial that could not write one to its end."""
        attrs = self._ledger.attrs(number)
        failed = TrialRecord(
            number, "failed", self._params(number), {}, record.points if record else [], reason,
            attrs.get("parent"), attrs.get("parent_round"), attrs.get("finishes"),
        )  # fmt: skip
        records.write(self._run_dir, failed)
        return failed

    # Taken up

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """This process's turn, with what others have done since its last one taken up."""
        with self._company.turn():
            if self.process is not None:
                self._ledger.look()
                self._store.look()
                self._take_up()
            yield

    def _take_up(self) -> None:
        """Take up what has ended; go on where a process stopped: tell what it had measured, run again what it had not.

        What a process does that is alive is its own.
        """
        mine = {*self._again, *self.running}
        for number in self._ledger.numbers:
            if number in self._ledger.records or number in mine:
                continue
            attrs = self._ledger.attrs(number)
            if number not in self._observations:
                given = bool(attrs.keys() & {"queued", "finishes"})
                self._observations.mirror(number, self._ledger.drawn(number), drawn=not given)
            told = number in self._ledger.told
            if not told and self._company.alive(attrs.get("by")):
                continue
            record = self._ledger.saved(number)
            if record is not None and record.state in records.FINAL_STATES:
                self._end(self.judge.marked(record))
            elif not told and attrs.get("starts", 1) >= MAX_STARTS:
                self._end(self._failed(number, record, f"it was cut off {MAX_STARTS} times"))
            else:  # cut off, or its record is lost
                if self.process:
                    self._ledger.note(number, "by", self.process)
                self._again.append(number)
        self._sweep()
