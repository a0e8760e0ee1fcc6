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
    refine: Refinement
    initial_points: Sequence[InitialPoint] = ()
    levels: Sequence[InitialPoint] = ()
    features: Features = field(default_factory=Features)
    totals: Mapping[str, int] = field(default_factory=dict)
    refinement_seconds: float = 0.0
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
        self,
        trial_store: TrialStore,
        checkpoints: CheckpointStore,
        parameters: Mapping[str, Parameter],
        settings: SearchSettings,
    ) -> None:
        self._trial_store, self._checkpoints, self._parameters, self._settings = (
            trial_store,
            checkpoints,
            parameters,
            settings,
        )
        self._before = len(trial_store.numbers)
        self._cached_recovery: tuple[int, Recovery] | None = None

    def choose_next(self) -> tuple[dict[str, object] | None, dict[str, Any]]:
        """The next trial's parameters under the study's names, None where they are drawn, and what is noted of it."""
        settings, trial_store = self._settings, self._trial_store
        started = len(trial_store.numbers)
        queued = self._next_queued()
        if queued is not None:
            return to_study_params([*settings.initial_points, *settings.levels][queued]), {"queued": queued}
        expected = settings.budget.expected_trials(started, self._before)
        if (
            refinement.should_refine(started, len(trial_store.refinements), expected, settings.refine.share)
            and self._has_time_to_refine()
        ):
            chosen = self._trial_to_refine()
            if chosen is not None:
                # BACK times the weights that are left
                most = 1 - refinement.MIN_WEIGHTS_RATIO * (1 - chosen.last.compression)
                drawn = trial_store.study_params(chosen.trial)
                return drawn, {"refines": chosen.trial} | self.choose_warm_start(drawn, most)
        return None, {}

    def choose_warm_start(self, drawn: Mapping[str, object], max_compression: float = 1.0) -> dict[str, Any]:
        """Where a trial with these parameters begins, as it is noted."""
        if not self._settings.features.warm_start:
            return {}
        ratios = ratios_of(from_study_params(drawn, self._parameters))
        max_error = self._max_recoverable_error(self._settings.compression(ratios))
        start = warm_start.find_warm_start(self._same_granularity(drawn), ratios, max_error, max_compression)
        return {} if start is None else {"parent": start.trial, "parent_round": start.round}

    def _same_granularity(self, drawn: Mapping[str, object]) -> list[tuple[int, PointRecord]]:
        """The rounds whose masks are of the same granularity as those of a trial with these parameters."""
        points, name = self._checkpoints.points, "granularity"
        if not isinstance(self._parameters.get(name), Choice):
            return points
        return [(trial, point) for trial, point in points if self._trial_store.study_params(trial)[name] == drawn[name]]

    def expected(self, record: TrialRecord) -> list[float]:
        """The validation errors of a trial's rounds, in percent, as finishing it is expected to leave them."""
        if not self._settings.refine.share or record.kind == "refine":
            return [point.val_error for point in record.points]
        recovery = self._recovery()
        return [recovery.expected(point.val_error, point.compression) for point in record.points]

    def _recovery(self) -> Recovery:
        """What finishing has been seen to win back; looked up anew when another trial has ended."""
        known = self._trial_store.records
        if self._cached_recovery is None or self._cached_recovery[0] != len(known):
            found = Recovery(refined_pairs([*known.values()]), self._settings.dense_error, self._settings.noise)
            self._cached_recovery = len(known), found
        return self._cached_recovery[1]

    def _next_queued(self) -> int | None:
        """The next of the guesses and levels; no level beyond one that finishing is not expected to bring to the limit.

        Levels are tried from coarse to fine: the whole range is soon known, and those between begin at the nearest.
        """
        initial_points, records = len(self._settings.initial_points), self._trial_store.records
        tried = {
            at: n for n in self._trial_store.numbers if (at := self._trial_store.attrs(n).get("queued")) is not None
        }
        ended = [(at, records[n]) for at, n in tried.items() if at >= initial_points and n in records]
        failed = [
            at for at, r in ended if not r.points or r.last.val_error > self._max_recoverable_error(r.last.compression)
        ]
        end = min(failed, default=initial_points + len(self._settings.levels))
        order = [
            *range(initial_points),
            *(initial_points + level for level in coarse_to_fine(len(self._settings.levels))),
        ]
        return next((at for at in order if at not in tried and (at < initial_points or at < end)), None)

    def _is_recoverable(self, record: TrialRecord) -> bool:
        """Whether refining a trial that has ended is expected to bring it to the limit."""
        if not record.points:
            return False
        return record.last.val_error <= self._max_recoverable_error(record.last.compression)

    def _max_recoverable_error(self, compression: float) -> float:
        """The highest validation error from which the limit is expected to be reached; the limit without finishing."""
        limit = self._settings.limit
        return self._recovery().max_recoverable_error(limit, compression) if self._settings.refine.share else limit

    def _has_time_to_refine(self) -> bool:
        """Whether a finishing trial would end in time, going by those that have ended."""
        took = [record.seconds for record in self._trial_store.records.values() if record.kind == "refine"]
        return max(took, default=self._settings.refinement_seconds) <= self._settings.budget.remaining

    def _trial_to_refine(self) -> TrialRecord | None:
        known, taken = list(self._trial_store.records.values()), set(self._trial_store.refinements.values())
        farthest = len(taken) % 2 == 1
        return refinement.choose_trial(known, taken, self._recovery(), self._settings.limit, farthest=farthest)
