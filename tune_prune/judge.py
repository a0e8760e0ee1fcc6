"""Which trials are stopped, which of them are let through to learn from, and when too many have failed."""

from dataclasses import replace
from pathlib import Path

from tune_prune import stopping
from tune_prune.common.seeding import derive_seed
from tune_prune.ledger import Ledger
from tune_prune.results import records
from tune_prune.results.records import TrialRecord
from tune_prune.space import ratios_of
from tune_prune.turns import Goal

FEW = 6
"""Trials that have to have ended before their failures end a search."""


class Judge:
    """Judges trials after each of their rounds, and writes into the records of those that end what it judged."""

    def __init__(self, ledger: Ledger, run_dir: Path, goal: Goal, seed: int) -> None:
        self._ledger, self._run_dir, self._goal, self._seed = ledger, run_dir, goal, seed
        self._stopped: dict[int, str] = {}

    def stops(self, number: int) -> bool:
        """Whether to stop a trial after the round that it has just ended."""
        goal = self._goal
        if not goal.economy.stop or self._ledger.attrs(number).keys() & {"let_through", "queued"}:
            return False  # what was asked for by name is seen through; levels are ended by `Turns`
        record = self._ledger.saved(number)
        assert record is not None
        finishes = goal.finish.share > 0
        ended = list(self._ledger.records.values())
        going = goal.compression(ratios_of(record.params))
        said = stopping.verdict(record, going, ended, goal.dense_error, goal.limit, finishes)
        if said and derive_seed(self._seed, number, 2) % stopping.LET_THROUGH == 0:
            self._ledger.note(number, "let_through", said)
        elif said:
            self._stopped[number] = said
        return number in self._stopped

    def stopped(self, record: TrialRecord) -> TrialRecord:
        """The record of a trial that is over, which says so if the trial was stopped."""
        if record.trial not in self._stopped:
            return record
        return self._written(replace(record, state="stopped", reason=self._stopped.pop(record.trial)))

    def marked(self, record: TrialRecord) -> TrialRecord:
        """The record of a trial that has ended, which says so if the trial was to be stopped and was let through."""
        said = self._ledger.attrs(record.trial).get("let_through")
        if said is None or record.state != "complete" or record.reason:
            return record
        return self._written(replace(record, reason=f"{records.EXEMPT_PREFIX}{said}"))

    def _written(self, record: TrialRecord) -> TrialRecord:
        records.write(self._run_dir, record)
        return record

    def fault(self) -> str:
        """Why to end the search before its budget, or nothing: more trials have failed than may."""
        ended, most = len(self._ledger.records), self._goal.max_failures
        failed = [record for record in self._ledger.records.values() if record.state == "failed"]
        if ended < FEW or len(failed) <= most * ended:
            return ""
        return (
            f"{len(failed)} of {ended} trials failed, more than --max-failures {most:g}; the last: {failed[-1].reason}"
        )
