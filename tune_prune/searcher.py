"""Optuna under Ray Tune: what Ray asks a searcher, and going on after an interruption.

Ray's own OptunaSearch drops constraints without a word, tells a stopped trial as complete and cannot resume a study;
hence this one. The study is the one truth (`ledger.py`), and Ray's snapshots of it are not used.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher

from tune_prune import finishing, records, stopping
from tune_prune.company import Company, alone
from tune_prune.knobs import Knob
from tune_prune.ledger import Ledger
from tune_prune.observations import Observations
from tune_prune.records import TrialRecord
from tune_prune.rounds import Store
from tune_prune.seeds import derive_seed
from tune_prune.space import ratios_of
from tune_prune.turns import Goal, Turns

FEW = 6
"""Trials that have to have ended before their failures end a search."""

MAX_STARTS = 3
"""A trial that took its process down this often is given up as failed."""


class StudySearcher(Searcher):
    """Asks an Optuna study for trials and tells it what their records say; error and constraint in percent.

    `alone` is to be set to whether no trial shares its device's memory with another: one that finds no room then has
    failed; else the searcher is `crowded`, and trials are to be run again with fewer at a time. `broken` is what went
    wrong with the search itself and ends it: a full disk, say.
    """

    def __init__(
        self,
        study: optuna.Study,
        run_dir: Path,
        knobs: Mapping[str, Knob],
        goal: Goal,
        sampler: str,
        seed: int,
        on_change: Callable[["StudySearcher"], None],
        company: Company | None = None,
    ) -> None:
        super().__init__()
        self._company = company or alone(run_dir)
        self._run_dir, self._goal, self._seed, self._on_change = run_dir, goal, seed, on_change
        self._ledger = Ledger(study, run_dir, knobs, goal.limits)
        self._store = Store(run_dir, goal.limits)
        self._turns = Turns(self._ledger, self._store, knobs, goal)
        self._observations = Observations(sampler, knobs, goal.limits)
        self._numbers: dict[str, int] = {}
        self._again: list[int] = []
        self._cut: list[int] = []
        self.alone = True
        self.crowded = False
        self.broken: Exception | None = None
        self._stopped: dict[int, str] = {}
        self._swept = 0
        with self._company.turn():
            self._take_up()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its searchers for snapshots, and the study is what a run resumes from."""
        return {}

    @property
    def records(self) -> dict[int, TrialRecord]:
        """The records of trials that have ended, by number."""
        return self._ledger.records

    @property
    def started(self) -> int:
        """Trials begun, finished ones included."""
        return len(self._ledger.numbers)

    @property
    def running(self) -> int:
        """Trials that run now."""
        return len(self._numbers)

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

    # What Ray Tune calls

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of a trial: its number, seed and parameters, and the round that it begins at, if any.

        `Searcher.FINISHED` where other processes run all that are missing.
        """
        with self._company.turn():
            self._meet()
            number = self._restart()
            if number is None and self._company.name and not self._goal.budget.missing(self.started):
                return str(Searcher.FINISHED)
            if number is None:
                number = self._begin()
        self._numbers[trial_id] = number
        self._on_change(self)
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
        return finishing.way(self._goal.finish, params, start.ratios if start else {})

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A round ended; what it measured is in the trial's record."""
        with self._unbroken():
            self._on_change(self)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended: its record goes into the study. One that was only interrupted stays as it is."""
        if self.broken is None:  # else it stays as one that was interrupted
            with self._unbroken():
                self._ended(trial_id, result or {}, error)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """What is raised here breaks the search. Ray would take it for the trial's fault, and begin that again."""
        try:
            yield
        except Exception as error:
            self.broken = self.broken or error

    def _ended(self, trial_id: str, result: Mapping[str, Any], error: bool) -> None:
        if "unwritten" in result:
            raise OSError(result["unwritten"])
        number = self._numbers.pop(trial_id)
        record = self._ledger.saved(number)
        if record is not None and number in self._stopped:
            record = replace(record, state="stopped", reason=self._stopped.pop(number))
            records.write(self._run_dir, record)
        with self._company.turn():
            self._meet()
            if record is not None and record.state in records.FINAL:
                self._end(self._marked(record))
            elif error:
                self._end(self._failed(number, record, "its worker process died, again after each retry"))
            elif record is not None and self.alone and result.get("no_room"):
                self._end(self._failed(number, record, record.reason))
            else:
                self._cut.append(number)
                self.crowded = self.crowded or bool(result.get("no_room"))
            self._sweep()
        self._on_change(self)

    def judge(self, trial_id: str) -> bool:
        """Whether to stop a trial after the round that it has just ended."""
        with self._unbroken():
            return self._judge(self._numbers[trial_id])
        return False

    def _judge(self, number: int) -> bool:
        goal = self._goal
        if not goal.economy.stop or self._ledger.attrs(number).keys() & {"let_through", "queued"}:
            return False  # what was asked for by name is seen through; levels are ended by `Turns`
        record = self._ledger.saved(number)
        assert record is not None
        finishes = goal.finish.share > 0
        ended = list(self.records.values())
        going = goal.compression(ratios_of(record.params))
        said = stopping.verdict(record, going, ended, goal.dense_error, goal.limit, finishes)
        if said and derive_seed(self._seed, number, 2) % stopping.LET_THROUGH == 0:
            self._ledger.note(number, "let_through", said)
        elif said:
            self._stopped[number] = said
        return number in self._stopped

    def begin_again(self) -> None:
        """Run again the trials that were cut off since one found no room beside others; it is no fault of theirs."""
        cut = {*self._cut, *self._numbers.values()}  # of some that have not begun Ray does not say that they are over
        for number in cut:
            self._ledger.note(number, "starts", self._ledger.attrs(number).get("starts", 1) - 1)
        self._again = sorted({*self._again, *cut})
        self._numbers, self._cut, self.crowded = {}, [], False

    def fault(self) -> str:
        """Why to end the search before its budget, or nothing: it is broken, or more trials have failed than may."""
        if self.broken is not None:
            return f"{type(self.broken).__name__}: {self.broken}"
        ended, most = len(self.records), self._goal.max_failures
        failed = [record for record in self.records.values() if record.state == "failed"]
        if ended < FEW or len(failed) <= most * ended:
            return ""
        return (
            f"{len(failed)} of {ended} trials failed, more than --max-failures {most:g}; the last: {failed[-1].reason}"
        )

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see `__getstate__`."""

    # The study

    @property
    def anything_to_do(self) -> bool:
        """Whether this process has a trial to begin, once others have gone on; never where it is the only one."""
        with self._company.turn():
            self._meet()
        self._on_change(self)
        return bool(self._again)

    def _meet(self) -> None:
        """Learn what other processes have done since the last time, where there are others."""
        if self._company.name is None:
            return
        self._ledger.look()
        self._store.look()
        self._take_up()

    def _take_up(self) -> None:
        """Take up what has ended; go on where a process stopped: tell what it had measured, run again what it had not.

        What a process does that is alive is its own.
        """
        mine = {*self._again, *self._numbers.values()}
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
            if record is not None and record.state in records.FINAL:
                self._end(self._marked(record))
            elif not told and attrs.get("starts", 1) >= MAX_STARTS:
                self._end(self._failed(number, record, f"it was cut off {MAX_STARTS} times"))
            else:  # cut off, or its record is lost
                if self._company.name:
                    self._ledger.note(number, "by", self._company.name)
                self._again.append(number)
        self._sweep()

    def _restart(self) -> int | None:
        """A trial that an earlier process had begun, under its number and with its parameters."""
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
        if self._company.name:
            attrs["by"] = self._company.name
        begun = self._ledger.begin(drawn, attrs)
        if begun != number:
            told = f"another process began trial {number} at the same time: locks on its files do not hold there"
            raise RuntimeError(f"{self._run_dir}: {told}")
        return number

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

    def _marked(self, record: TrialRecord) -> TrialRecord:
        """A trial's record, which says so if the trial was to be stopped and was let through."""
        said = self._ledger.attrs(record.trial).get("let_through")
        if said is None or record.state != "complete" or record.reason:
            return record
        record = replace(record, reason=f"{records.MARK}{said}")
        records.write(self._run_dir, record)
        return record

    def _failed(self, number: int, record: TrialRecord | None, reason: str) -> TrialRecord:
        """The record of a trial that could not write one to its end."""
        attrs = self._ledger.attrs(number)
        failed = TrialRecord(
            number,
            "failed",
            self._params(number),
            {},
            record.points if record else [],
            reason,
            attrs.get("parent"),
            attrs.get("parent_round"),
            attrs.get("finishes"),
        )
        records.write(self._run_dir, failed)
        return failed
