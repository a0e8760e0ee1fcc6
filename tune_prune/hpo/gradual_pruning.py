"""Gradual pruning by one threshold: the parameters of the next round on the way from the dense model to the far end.

One threshold for all layers, found again in every round on weights that were retrained meanwhile, is a strong rule (Han
et al. 2015 with Zhu and Gupta 2017). Each of its rounds is a trial, from which others may start.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tune_prune.hpo.front_extension import find_halfway
from tune_prune.hpo.phases import GradualPruning
from tune_prune.pruning import masks
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.trial_params import TrialParams

Params = Mapping[str, object]
"""Parameters of a trial under the space's names."""

HALVINGS = 60
"""How often the range of thresholds is halved."""

LEAST_STEP = 1.1
"""After a round outside the limit, how many times fewer weights another tries at least."""

LONGER = 2
"""How many times as long rounds train once shorter ones have come as far as they can."""


@dataclass(frozen=True)
class NextRound:
    """A round that comes next: the factor that it ends at, and the round from which it starts, if any.

    It trains `times` as long as the steps of its place say.
    """

    factor: float
    start: TrialRecord | None
    times: int = 1


@dataclass(frozen=True)
class GradualTrials:
    """What makes the trials of gradual pruning: how they prune and train, and where their scores come from.

    `stages` are the labels of what it prunes, each with a threshold of its own (`find_params`): all layers, or all
    groups and then all layers. `read_scores` gives the scores of their units (`score_globally`) in the checkpoint of a
    point, or in the dense model where there is none. `to_params` makes the parameters of a trial of ratios by label,
    within the bounds of the space.
    """

    pruning: GradualPruning
    stages: Sequence[Sequence[str]]
    read_scores: Callable[[PointRecord | None], Mapping[str, Tensor]]
    to_params: Callable[[Mapping[str, float]], Params]

    def next_round(self, rounds: Sequence[TrialRecord]) -> NextRound | None:
        """The round after these; None at the end.

        After a round outside the limit the next goes half as far from the last one within it, or from the dense
        model, in the logarithm of the factor, until that is nearer than `LEAST_STEP`. Where steps are left then, as
        where the limit is far from `max_factor`, rounds train `LONGER` times as long, and go to the nearest place
        outside the limit first. A round that came no further than the one before is the last.
        """
        if any(one.state != "complete" or one.last.checkpoint is None for one in rounds):
            return None
        within = find_furthest(rounds)
        if rounds and rounds[-1].last.feasible and rounds[-1] is not within:
            return None
        reached = 0.0 if within is None else within.last.compression
        factor, times = masks.factor(reached), max(map(self._times, rounds), default=1)
        beyond = [one for one in rounds if one.last.compression > reached]
        halfway = find_halfway(reached, [one.last.compression for one in beyond if self._times(one) == times])
        if math.isfinite(halfway):
            if halfway >= LEAST_STEP:
                return NextRound(factor * halfway, within, times)
            times *= LONGER
        elif not beyond:
            return NextRound(factor * self.pruning.step_factor, within, times) if self.count_rounds(factor) else None
        nearest = masks.factor(min(one.last.compression for one in beyond))
        left = self.pruning.steps - sum(_steps(one) for one in rounds)
        is_left = times * self.pruning.steps_to(nearest) <= left and len(rounds) < self.pruning.rounds
        return NextRound(nearest, within, times) if is_left else None

    def _times(self, one: TrialRecord) -> int:
        """How many times as long a round has trained as the steps of its place say."""
        return max(1, round(_steps(one) / self.pruning.steps_to(one.last.factor)))

    def count_rounds(self, reached: float) -> int:
        """How many rounds follow a factor that was reached, as long as they stay within the limit."""
        step = self.pruning.step_factor
        return max(0, int(math.log(self.pruning.max_factor * math.sqrt(step) / reached, step)))

    def train(self, params: TrialParams, factor: float, times: int = 1) -> TrialParams:
        """The parameters of a trial, trained as the round that ends at a factor, `times` as long."""
        steps = times * self.pruning.steps_to(factor)
        return params.with_training(rounds=1, steps=steps, final_steps=steps, lr=self.pruning.lr)


def _steps(one: TrialRecord) -> int:
    """The training steps of a round."""
    return one.params.to_plan().recipe_at(1).steps


def find_furthest(rounds: Iterable[TrialRecord]) -> TrialRecord | None:
    """The most compressed round within the limit, from which gradual pruning goes on; None where none is."""
    within = [one for one in rounds if one.points and one.last.feasible]
    return max(within, key=lambda one: one.last.factor, default=None)


def find_params(
    stages: Sequence[Sequence[str]],
    read_scores: Callable[[], Mapping[str, Tensor]],
    to_params: Callable[[Mapping[str, float]], Params],
    compression: Callable[[Params], float],
    target: float,
) -> Params | None:
    """The parameters that the lowest thresholds make whose `compression`, within the bounds, reaches the target.

    Of each layer or group, the share of its units leaves whose scores are not above a threshold. Each of the `stages`,
    layers or groups by label, has a threshold of its own and makes the same share of the factor, in its logarithm.
    `read_scores` gives scores by label; units that are gone have 0. None where the bounds end below the target: nothing
    is read then.
    """
    ratios = {label: 1.0 for stage in stages for label in stage}
    if compression(to_params(ratios)) < target:
        return None
    scores, ratios = read_scores(), dict.fromkeys(ratios, 0.0)

    def compression_with(found: Mapping[str, float]) -> float:
        return compression(to_params({**ratios, **found}))

    for place, stage in enumerate(stages, start=1):
        of_stage = {label: scores[label] for label in stage}
        ratios.update(_find_ratios(of_stage, compression_with, 1 - (1 - target) ** (place / len(stages))))
    return to_params(ratios)


def _find_ratios(
    scores: Mapping[str, Tensor], compression: Callable[[Mapping[str, float]], float], target: float
) -> dict[str, float]:
    """The ratios that the lowest threshold makes whose `compression` reaches the target, or that of all units."""
    ascending = {label: values.detach().flatten().double().sort().values for label, values in scores.items()}

    def ratios_at(threshold: float) -> dict[str, float]:
        bound = torch.tensor(threshold, dtype=torch.float64)
        removed = {label: int(torch.searchsorted(values, bound, right=True)) for label, values in ascending.items()}
        return {label: count / len(ascending[label]) for label, count in removed.items()}

    low, high = 0.0, max(float(values[-1]) for values in ascending.values())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if compression(ratios_at(middle)) < target:
            low = middle
        else:
            high = middle
    return ratios_at(high)
