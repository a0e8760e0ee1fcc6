"""Whose turn it is: what the next trial of a search is, and where it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_prune import ancestry, finishing
from tune_prune.budget import Budget
from tune_prune.knobs import Knob
from tune_prune.ledger import Ledger
from tune_prune.records import TrialRecord
from tune_prune.space import Economy, Finish, ratios_of
from tune_prune.study import from_study, to_study

Guess = Mapping[str, object]


@dataclass(frozen=True)
class Goal:
    """What a search works for: within what budget, what error is allowed (percent), what is kept for finishing.

    `guesses` are tried first, and then `levels`, which are ascending in compression, as far as they are not too much.
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


def coarse_first(count: int) -> list[int]:
    """The numbers below `count`: every fourth, then those halfway between, then the rest."""
    return sorted(range(count), key=lambda number: (number % 4 != 0, number % 2 != 0, number))


class Turns:
    """First the guesses and the levels; then trials that are drawn, and among them those that finish others."""

    def __init__(self, ledger: Ledger, run_dir: Path, knobs: Mapping[str, Knob], goal: Goal) -> None:
        self._ledger, self._run_dir, self._knobs, self._goal = ledger, run_dir, knobs, goal
        self._before = len(ledger.numbers)

    def next(self) -> tuple[dict[str, object] | None, dict[str, Any]]:
        """The next trial's parameters under the study's names, None where they are drawn, and what is noted of it."""
        goal, ledger = self._goal, self._ledger
        started = len(ledger.numbers)
        queued = self._queued()
        if queued is not None:
            return to_study([*goal.guesses, *goal.levels][queued]), {"queued": queued}
        expected = goal.budget.expected(started, self._before)
        if finishing.due(started, len(ledger.finishing), expected, goal.finish.share) and self._time_to_finish():
            parent = self._worth_finishing()
            if parent is not None:
                start = {"parent": parent.trial, "parent_round": parent.last.round}
                return ledger.drawn(parent.trial), {"kind": "finish"} | start
        return None, {}

    def inherited(self, drawn: Mapping[str, object]) -> dict[str, Any]:
        """Where a trial with these parameters begins, as it is noted."""
        if not self._goal.economy.inherit:
            return {}
        ratios = ratios_of(from_study(drawn, self._knobs))
        start = ancestry.nearest(self._ledger.records.values(), ratios, self._hopeful(), self._there)
        return {} if start is None else {"parent": start.trial, "parent_round": start.round}

    def recovery(self) -> float:
        """The share of an error above the dense model's that finishing is expected to leave; 1 where none is done."""
        if not self._goal.finish.share:
            return 1.0
        return finishing.recovery([*self._ledger.records.values()], self._goal.dense_error)

    def _queued(self) -> int | None:
        """The next of the guesses and levels; no level beyond one that finishing is not expected to bring to the limit.

        Levels are tried from coarse to fine: the whole range is soon known, and those between begin at the nearest.
        """
        guesses, records = len(self._goal.guesses), self._ledger.records
        tried = {at: n for n in self._ledger.numbers if (at := self._ledger.attrs(n).get("queued")) is not None}
        ended = [(at, records[n]) for at, n in tried.items() if at >= guesses and n in records]
        failed = [at for at, r in ended if not r.points or r.last.val_error > self._hopeful()]
        end = min(failed, default=guesses + len(self._goal.levels))
        order = [*range(guesses), *(guesses + level for level in coarse_first(len(self._goal.levels)))]
        return next((at for at in order if at not in tried and (at < guesses or at < end)), None)

    def _hopeful(self) -> float:
        """The highest validation error that finishing is expected to bring down to the limit."""
        room = self._goal.limit - self._goal.dense_error
        return self._goal.dense_error + room / max(self.recovery(), 0.05)

    def _time_to_finish(self) -> bool:
        """Whether a finishing trial would end in time, going by those that have ended."""
        took = [record.seconds for record in self._ledger.records.values() if record.kind == "finish"]
        return max(took, default=self._goal.finish_seconds) <= self._goal.budget.left

    def _worth_finishing(self) -> TrialRecord | None:
        known, taken = list(self._ledger.records.values()), set(self._ledger.finishing.values())
        gone = {record.trial for record in known if record.points and not self._there(str(record.last.checkpoint))}
        farthest = len(taken) % 2 == 1
        return finishing.choose(known, taken, self._goal.dense_error, self._goal.limit, gone=gone, farthest=farthest)

    def _there(self, checkpoint: str) -> bool:
        return (self._run_dir / checkpoint).is_file()
