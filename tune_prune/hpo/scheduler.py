"""Chooses the next trial and the checkpoint it starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tune_prune.hpo import refinement
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.checkpoint_store import CheckpointStore
from tune_prune.hpo.front_extension import LEAST_STEP, next_compression, scale_kept
from tune_prune.hpo.parameters import Choice, Parameter
from tune_prune.hpo.refinement import Recovery, refined_pairs
from tune_prune.hpo.space import Features, Refinement
from tune_prune.hpo.study import bounds_of_kept, from_study_params, to_study_params
from tune_prune.hpo.trial_attrs import TrialAttrs
from tune_prune.hpo.trial_store import TrialStore
from tune_prune.hpo.warm_start import WarmStart, find_warm_start
from tune_prune.pruning import masks
from tune_prune.pruning.channels.counting import ChannelCounts
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.tasks.metrics import ERROR, Metric

InitialPoint = Mapping[str, object]
"""Parameters of a trial under the space's names; what it leaves out is drawn."""


@dataclass(frozen=True)
class SearchSettings:
    """What a search is for: its budget, the constraints on points, and how it spends its trials.

    `initial_points` are tried first, then `levels`, ascending in compression, as far as they can keep the limit.
    `dense_metric` is the dense model's metric, `totals` are the weights of each layer, `refinement_seconds` the
    expected duration of a refinement, `samples` the number of validation images. A search ends once more than the
    share `max_failures` of its trials has failed. `channels` are the groups of channels, where these are pruned.
    """

    budget: Budget
    dense_metric: float
    limits: Constraints
    refine: Refinement
    initial_points: Sequence[InitialPoint] = ()
    levels: Sequence[InitialPoint] = ()
    features: Features = field(default_factory=Features)
    totals: Mapping[str, int] = field(default_factory=dict)
    refinement_seconds: float = 0.0
    samples: int = 0
    max_failures: float = 1.0
    channels: ChannelCounts | None = None

    @property
    def metric(self) -> Metric:
        """What models are judged by."""
        return self.limits.metric

    @property
    def standard_error(self) -> float:
        """That of the dense model's error, in percentage points; 0 for other metrics, of which it is not known."""
        known = self.metric == ERROR and self.samples > 0
        return refinement.standard_error(self.dense_metric, self.samples) if known else 0.0

    def compression(self, ratios: Mapping[str, float]) -> float:
        """The compression of the whole model that these ratios, by layer or group of channels, make."""
        if self.channels is not None:
            return self.channels.compression(ratios)
        removed = sum(masks.count_removed(ratio, self.totals[label]) for label, ratio in ratios.items())
        return removed / sum(self.totals.values())


def coarse_to_fine(count: int) -> list[int]:
    """The numbers below `count`: every fourth, then those halfway between, then the rest."""
    return sorted(range(count), key=lambda number: (number % 4 != 0, number % 2 != 0, number))


class TrialScheduler:
    """Chooses trials: initial points and levels first, then drawn ones, and among those refinements of earlier ones."""

    def __init__(
        self,
        trial_store: TrialStore,
        checkpoints: CheckpointStore,
        parameters: Mapping[str, Parameter],
        settings: SearchSettings,
    ) -> None:
        self._trial_store, self._checkpoints = trial_store, checkpoints
        self._parameters, self._settings = parameters, settings
        self._bounds = bounds_of_kept(parameters)
        self._started_before = len(trial_store.numbers)
        self._cached_recovery: tuple[int, Recovery] | None = None

    def choose_next(self) -> tuple[dict[str, object] | None, TrialAttrs]:
        """The next trial's parameters under the study's names, None where they are to be drawn, and its attributes."""
        settings, store = self._settings, self._trial_store
        queued = self._next_queued()
        if queued is not None:
            return to_study_params([*settings.initial_points, *settings.levels][queued]), TrialAttrs(queued=queued)
        started, share = len(store.numbers), settings.refine.share
        expected = settings.budget.expected_trials(started, self._started_before)
        is_time = refinement.should_refine(started, len(store.refinements), expected, share)
        if not is_time or not self._has_time_to_refine():
            return None, TrialAttrs()
        beyond_front = len(set(store.refinements.values())) % 2 == 1  # every other one
        chosen = self._trial_to_refine(beyond_front)
        if beyond_front and (extending := self._extend_front(chosen)) is not None:
            return extending
        if chosen is None:
            return None, TrialAttrs()
        max_compression = 1 - refinement.MIN_WEIGHTS_RATIO * (1 - chosen.last.compression)
        params = store.study_params(chosen.trial)
        start = self.choose_warm_start(params, max_compression)
        if start is None:
            return params, TrialAttrs(refines=chosen.trial)
        return params, TrialAttrs(refines=chosen.trial, parent=start.trial, parent_round=start.round)

    def choose_warm_start(self, drawn: Mapping[str, object], max_compression: float = 1.0) -> WarmStart | None:
        """The recorded round from which a trial with these study parameters starts; None means the dense model."""
        if not self._settings.features.warm_start:
            return None
        ratios = from_study_params(drawn, self._parameters).ratios
        max_cost = self._max_recoverable_cost(self._settings.compression(ratios))
        metric = self._settings.metric
        return find_warm_start(self._same_granularity(drawn), ratios, max_cost, max_compression, metric)

    def _same_granularity(self, drawn: Mapping[str, object]) -> list[tuple[int, PointRecord]]:
        """The stored rounds, with their trials, whose masks have the granularity of a trial with these parameters."""
        points, name = self._checkpoints.points, "granularity"
        if not isinstance(self._parameters.get(name), Choice):
            return points
        return [(trial, point) for trial, point in points if self._trial_store.study_params(trial)[name] == drawn[name]]

    def expected_metrics(self, record: TrialRecord) -> list[float]:
        """The validation metrics of a trial's rounds as they are expected after refinement."""
        if not self._settings.refine.share or record.kind == "refine":
            return [point.judged for point in record.points]
        recovery, metric = self._recovery(), self._settings.metric
        return [
            metric.value(recovery.expected_error(metric.cost(point.judged), point.compression))
            for point in record.points
        ]

    def with_expected_costs(self, record: TrialRecord) -> TrialRecord:
        """A trial's record with the further metrics of its rounds as they are expected after refinement."""
        limits = self._settings.limits
        if not limits.dense or not self._settings.refine.share or record.kind == "refine":
            return record
        left = self._recovery().share_left
        points = [replace(p, costs=limits.after_refinement(p.costs, left(p.compression))) for p in record.points]
        return replace(record, points=points)

    def _recovery(self) -> Recovery:
        """What refinements have recovered so far; computed again once another trial has ended."""
        ended = self._trial_store.estimates.records
        if self._cached_recovery is None or self._cached_recovery[0] != len(ended):
            settings = self._settings
            metric = settings.metric
            pairs = refined_pairs([*ended.values()], metric)
            found = Recovery(pairs, metric.cost(settings.dense_metric), settings.standard_error)
            self._cached_recovery = len(ended), found
        return self._cached_recovery[1]

    def _next_queued(self) -> int | None:
        """The number of the next initial point or level, None where none is left.

        Levels are tried from coarse to fine: the whole range is soon known, and those between start from the nearest.
        Levels beyond one that refinement is not expected to bring to the limit are left out.
        """
        points, records = len(self._settings.initial_points), self._trial_store.estimates.records
        attrs = {number: self._trial_store.attrs(number) for number in self._trial_store.numbers}
        tried = {one.queued: number for number, one in attrs.items() if one.queued is not None}
        ended = [(at, records[number]) for at, number in tried.items() if at >= points and number in records]
        failed = [at for at, record in ended if not self._is_recoverable(record)]
        end = min(failed, default=points + len(self._settings.levels))
        order = [*range(points), *(points + level for level in coarse_to_fine(len(self._settings.levels)))]
        return next((at for at in order if at not in tried and (at < points or at < end)), None)

    def _is_recoverable(self, record: TrialRecord) -> bool:
        """Whether refining a trial that has ended is expected to bring it to the limit."""
        if not record.points:
            return False
        cost = self._settings.metric.cost(record.last.judged)
        return cost <= self._max_recoverable_cost(record.last.compression)

    def _max_recoverable_cost(self, compression: float) -> float:
        """The worst metric, as a cost, that refinement is expected to bring to the limit; without it, the limit."""
        limit = self._settings.limits.max_cost
        return self._recovery().max_recoverable_error(limit, compression) if self._settings.refine.share else limit

    def _has_time_to_refine(self) -> bool:
        """Whether a refinement would end in time, judged by the longest that has ended."""
        seconds = [record.seconds for record in self._trial_store.records.values() if record.kind == "refine"]
        return max(seconds, default=self._settings.refinement_seconds) <= self._settings.budget.remaining

    def _trial_to_refine(self, beyond_front: bool) -> TrialRecord | None:
        """The trial to refine next, for the far end of the front where that is asked for."""
        store = self._trial_store
        records, refined = list(store.estimates.records.values()), set(store.refinements.values())
        return refinement.choose_trial(
            records, refined, self._recovery(), self._settings.limits, beyond_front=beyond_front
        )

    def _extend_front(self, chosen: TrialRecord | None) -> tuple[dict[str, object] | None, TrialAttrs] | None:
        """A trial beyond the end of the front, where none is `chosen` to be refined there, or none far enough.

        While another such trial runs, its parameters are None: one is to be drawn. None where nothing is to be tried.
        """
        store, records = self._trial_store, self._trial_store.estimates.records
        extensions = [number for number in store.numbers if store.attrs(number).extends is not None]
        feasible = [(point.compression, r.trial) for r in records.values() for point in r.points if point.feasible]
        if not feasible:
            return None
        reached, end = max(feasible)
        if chosen is not None and 1 - reached >= LEAST_STEP * (1 - chosen.last.compression):
            return None
        if any(number not in records for number in extensions):
            return None, TrialAttrs()
        failed = [r.last.compression for r in records.values() if r.kind == "refine" and r.points]
        failed += [self._compression(store.study_params(n)) for n in extensions if not self._is_recoverable(records[n])]
        target = next_compression(reached, failed)
        if target is None:
            return None
        params = scale_kept(store.study_params(end), self._bounds, self._compression, target)
        return None if params is None else (params, TrialAttrs(extends=end))

    def _compression(self, study_params: Mapping[str, object]) -> float:
        """The compression that a trial with these study parameters ends at."""
        return self._settings.compression(from_study_params(study_params, self._parameters).ratios)
