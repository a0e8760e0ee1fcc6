"""Whose turn it is: what the next trial of a search is, and where it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_prune.hpo import refinement, warm_start
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.checkpoint_store import CheckpointStore
from tune_prune.hpo.parameters import Choice, Parameter
from tune_prune.hpo.refinement import Recovery, refined_pairs
from tune_prune.hpo.space import Features, Refinement, ratios_of
from tune_prune.hpo.study import from_study_params, to_study_params
from tune_prune.hpo.trial_store import TrialStore
from tune_prune.pruning import masks
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import PointRecord, TrialRecord

InitialPoint = Mapping[str, object]


@dataclass(frozen=True)
class SearchSettings:
    """What a search works for: within what budget, what points must keep, what is kept for finishing.

    `guesses` are tried first, and then `levels`, which are ascending in compression, as far as they are not too much.
    A search ends once more than `max_failures` of its trials have failed.
    `totals` are the weights of each layer, `finish_seconds` what finishing a trial is thought to take, `noise` the
    standard error of the dense model's error, in percentage points.
    """

    budget: Budget
    dense_error: float
    limits: Constraints
    finish: Refinement
    guesses: Sequence[InitialPoint] = ()
    levels: Sequence[InitialPoint] = ()
    economy: Features = field(default_factory=Features)
    totals: Mapping[str, int] = field(default_factory=dict)
    finish_seconds: float = 0.0
    noise: float = 0.0
    max_failures: float = 1.0

    @property
    def limit(self) -> float:
        """The highest feasible validation error, in percent."""
        return self.limits.error

    def compression(self, ratios: Mapping[str, float]) -> float:
        """What these ratios, by layer, make of the whole model."""
        removed = sum(masks.count_removed(ratio, self.totals[label]) for label, ratio in ratios.items())
        return removed / sum(self.totals.values())


def coarse_to_fine(count: int) -> list[int]:
    """The numbers below `count`: every fourth, then those halfway between, then the rest."""
    return sorted(range(count), key=lambda number: (number % 4 != 0, number % 2 != 0, number))


class TrialScheduler:
    """First the guesses and the levels; then trials that are drawn, and among them those that finish others."""

    def __init__(
        self, ledger: TrialStore, store: CheckpointStore, knobs: Mapping[str, Parameter], goal: SearchSettings
    ) -> None:
        self._ledger, self._store, self._knobs, self._goal = ledger, store, knobs, goal
        self._before = len(ledger.numbers)
        self._learned: tuple[int, Recovery] | None = None

    def next(self) -> tuple[dict[str, object] | None, dict[str, Any]]:
        """The next trial's parameters under the study's names, None where they are drawn, and what is noted of it."""
        goal, ledger = self._goal, self._ledger
        started = len(ledger.numbers)
        queued = self._queued()
        if queued is not None:
            return to_study_params([*goal.guesses, *goal.levels][queued]), {"queued": queued}
        expected = goal.budget.expected(started, self._before)
        if (
            refinement.should_refine(started, len(ledger.finishing), expected, goal.finish.share)
            and self._time_to_finish()
        ):
            chosen = self._worth_finishing()
            if chosen is not None:
                # BACK times the weights that are left
                most = 1 - refinement.MIN_WEIGHTS_RATIO * (1 - chosen.last.compression)
                drawn = ledger.drawn(chosen.trial)
                return drawn, {"finishes": chosen.trial} | self.inherited(drawn, most)
        return None, {}

    def inherited(self, drawn: Mapping[str, object], max_compression: float = 1.0) -> dict[str, Any]:
        """Where a trial with these parameters begins, as it is noted."""
        if not self._goal.economy.inherit:
            return {}
        ratios = ratios_of(from_study_params(drawn, self._knobs))
        max_error = self._hopeful(self._goal.compression(ratios))
        start = warm_start.find_warm_start(self._alike(drawn), ratios, max_error, max_compression)
        return {} if start is None else {"parent": start.trial, "parent_round": start.round}

    def _alike(self, drawn: Mapping[str, object]) -> list[tuple[int, PointRecord]]:
        """The rounds whose masks are of the same granularity as those of a trial with these parameters."""
        points, name = self._store.points, "granularity"
        if not isinstance(self._knobs.get(name), Choice):
            return points
        return [(trial, point) for trial, point in points if self._ledger.drawn(trial)[name] == drawn[name]]

    def expected(self, record: TrialRecord) -> list[float]:
        """The validation errors of a trial's rounds, in percent, as finishing it is expected to leave them."""
        if not self._goal.finish.share or record.kind == "finish":
            return [point.val_error for point in record.points]
        recovery = self._recovery()
        return [recovery.expected(point.val_error, point.compression) for point in record.points]

    def _recovery(self) -> Recovery:
        """What finishing has been seen to win back; looked up anew when another trial has ended."""
        known = self._ledger.records
        if self._learned is None or self._learned[0] != len(known):
            found = Recovery(refined_pairs([*known.values()]), self._goal.dense_error, self._goal.noise)
            self._learned = len(known), found
        return self._learned[1]

    def _queued(self) -> int | None:
        """The next of the guesses and levels; no level beyond one that finishing is not expected to bring to the limit.

        Levels are tried from coarse to fine: the whole range is soon known, and those between begin at the nearest.
        """
        guesses, records = len(self._goal.guesses), self._ledger.records
        tried = {at: n for n in self._ledger.numbers if (at := self._ledger.attrs(n).get("queued")) is not None}
        ended = [(at, records[n]) for at, n in tried.items() if at >= guesses and n in records]
        failed = [at for at, r in ended if not r.points or r.last.val_error > self._hopeful(r.last.compression)]
        end = min(failed, default=guesses + len(self._goal.levels))
        order = [*range(guesses), *(guesses + level for level in coarse_to_fine(len(self._goal.levels)))]
        return next((at for at in order if at not in tried and (at < guesses or at < end)), None)

    def _hopeful(self, compression: float) -> float:
        """The highest validation error from which the limit is expected to be reached; the limit without finishing."""
        limit = self._goal.limit
        return self._recovery().hopeful(limit, compression) if self._goal.finish.share else limit

    def _time_to_finish(self) -> bool:
        """Whether a finishing trial would end in time, going by those that have ended."""
        took = [record.seconds for record in self._ledger.records.values() if record.kind == "finish"]
        return max(took, default=self._goal.finish_seconds) <= self._goal.budget.left

    def _worth_finishing(self) -> TrialRecord | None:
        known, taken = list(self._ledger.records.values()), set(self._ledger.finishing.values())
        farthest = len(taken) % 2 == 1
        return refinement.choose_trial(known, taken, self._recovery(), self._goal.limit, farthest=farthest)
