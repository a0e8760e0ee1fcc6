"""Chooses the next trial and the checkpoint it starts from."""

from collections.abc import Mapping
from dataclasses import replace

from tune_prune.hpo import gradual_pruning, refinement
from tune_prune.hpo.checkpoint_store import CheckpointStore
from tune_prune.hpo.front_extension import LEAST_STEP, next_compression, scale_kept
from tune_prune.hpo.parameters import Choice, Parameter
from tune_prune.hpo.refinement import Recovery, refined_pairs
from tune_prune.hpo.search_settings import SearchSettings
from tune_prune.hpo.study import bounds_of_kept, from_study_params, to_study_params
from tune_prune.hpo.trial_attrs import TrialAttrs
from tune_prune.hpo.trial_store import TrialStore
from tune_prune.hpo.warm_start import WarmStart, find_warm_start
from tune_prune.pruning import masks
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.trial_params import TrialParams


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
        if (gradual := self._next_gradual()) is not None:
            return gradual
        queued = self._next_queued()
        if queued is not None:
            return to_study_params([*settings.initial_points, *settings.levels][queued]), TrialAttrs(queued=queued)
        started, share = len(store.numbers), settings.refine.share
        expected = settings.budget.expected_trials(started, self._started_before)
        is_time = refinement.should_refine(started, len(store.refinements), expected, share)
        if not is_time or not self._has_time_for("refine"):
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

    def params(self, number: int) -> TrialParams:
        """A trial's parameters; refinements and rounds of gradual pruning retrain in their own way."""
        store, settings = self._trial_store, self._settings
        params, attrs = store.params(number), store.attrs(number)
        if attrs.gradual and settings.gradual is not None:
            return settings.gradual.train(params, masks.factor(settings.compression(params)), attrs.times)
        if attrs.refines is None:
            return params
        start = store.start_of(number)
        return refinement.refinement_params(settings.refine, params, start.ratios if start else {})

    def _next_gradual(self) -> tuple[dict[str, object], TrialAttrs] | None:
        """The next round of gradual pruning; None while one runs, without time for it, and once it has ended."""
        store, gradual = self._trial_store, self._settings.gradual
        numbers, records = store.gradual, store.estimates.records
        if gradual is None or any(number not in records for number in numbers):
            return None
        found = gradual.next_round([records[number] for number in numbers])
        if found is None or not self._has_time_for("gradual", found.times):
            return None
        last, target = found.start, 1 - 1 / found.factor
        start = None if last is None else last.last
        params = gradual_pruning.find_params(
            gradual.stages,
            lambda: gradual.read_scores(start),
            gradual.to_params,
            lambda params: self._compression(to_study_params(params)),
            target,
        )
        if params is None:
            return None
        parent, round_ = (None, None) if last is None else (last.trial, last.last.round)
        attrs = TrialAttrs(gradual=True, times=found.times, parent=parent, parent_round=round_)
        return to_study_params(params), attrs

    def should_wait(self) -> bool:
        """Whether the trials that are left of the budget are kept for gradual pruning, of which a round runs."""
        store, gradual = self._trial_store, self._settings.gradual
        if gradual is None or not store.gradual or store.gradual[-1] in store.estimates.records:
            return False
        reached = masks.factor(self._compression(store.study_params(store.gradual[-1])))
        return 0 < self._settings.budget.trials_left(len(store.numbers)) <= gradual.count_rounds(reached)

    def choose_warm_start(self, drawn: Mapping[str, object], max_compression: float = 1.0) -> WarmStart | None:
        """The recorded round from which a trial with these study parameters starts; None means the dense model."""
        if not self._settings.features.warm_start:
            return None
        params = from_study_params(drawn, self._parameters)
        max_cost = self._max_recoverable_cost(self._settings.compression(params))
        metric = self._settings.metric
        return find_warm_start(self._same_granularity(drawn), params.ratios, max_cost, max_compression, metric)

    def _same_granularity(self, drawn: Mapping[str, object]) -> list[tuple[int, PointRecord]]:
        """The stored rounds, with their trials, whose masks have the granularity of a trial with these parameters."""
        points, name = self._checkpoints.points, "granularity"
        if not isinstance(self._parameters.get(name), Choice):
            return points
        return [(trial, point) for trial, point in points if self._trial_store.study_params(trial)[name] == drawn[name]]

    def expected_metrics(self, record: TrialRecord) -> list[float]:
        """The validation metrics of a trial's rounds as they are expected after refinement."""
        if not self._settings.refine.share or record.kind != "explore":
            return [point.judged for point in record.points]
        recovery, metric = self._recovery(), self._settings.metric
        return [
            metric.value(recovery.expected_error(metric.cost(point.judged), point.compression))
            for point in record.points
        ]

    def with_expected_costs(self, record: TrialRecord) -> TrialRecord:
        """A trial's record with the further metrics of its rounds as they are expected after refinement."""
        limits = self._settings.limits
        if not limits.dense or not self._settings.refine.share or record.kind != "explore":
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

    def _has_time_for(self, kind: str, times: int = 1) -> bool:
        """Whether a refinement, or a round of gradual pruning that trains `times` as long as others, would end in time.

        That is judged by the longest that did.
        """
        store = self._trial_store
        seconds = [one.seconds / store.attrs(number).times for number, one in store.records.items() if one.kind == kind]
        expected = self._settings.refinement_seconds if kind == "refine" else 0.0
        return times * max(seconds, default=expected) <= self._settings.budget.remaining

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
        failed = [r.last.compression for r in records.values() if r.kind != "explore" and r.points]
        failed += [self._compression(store.study_params(n)) for n in extensions if not self._is_recoverable(records[n])]
        target = next_compression(reached, failed)
        if target is None:
            return None
        params = scale_kept(store.study_params(end), self._bounds, self._compression, target)
        return None if params is None else (params, TrialAttrs(extends=end))

    def _compression(self, study_params: Mapping[str, object]) -> float:
        """The compression that a trial with these study parameters ends at."""
        return self._settings.compression(from_study_params(study_params, self._parameters))
