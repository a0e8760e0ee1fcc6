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

    `labels` are the layers or groups that it prunes. `read_scores` gives the scores of their units
    (`score_globally`) in the checkpoint of a point, or in the dense model where there is none. `to_params` makes the
    parameters of a trial of ratios by label, within the bounds of the space.
    """

    pruning: GradualPruning
    labels: Sequence[str]
    read_scores: Callable[[PointRecord | None], Mapping[str, Tensor]]
    to_params: Callable[[Mapping[str, float]], Params]

    def next_round(self, rounds: Sequence[TrialRecord]) -> NextRound | None:
        """The round after these; None at the end.

        After a round outside the limit the next goes half as far from the last one within it, in the logarithm of the
        factor, until that is nearer than `LEAST_STEP`. Where steps are left then, as where the limit is far from
        `max_factor`, rounds train `LONGER` times as long, and go to the nearest place outside the limit first. A round
        that came no further than the one before is the last.
        """
        if any(one.state != "complete" or one.last.checkpoint is None for one in rounds):
            return None
        within = find_furthest(rounds)
        if rounds and (within is None or (rounds[-1].last.feasible and rounds[-1] is not within)):
            return None
        reached = 0.0 if within is None else within.last.compression
        factor, times = masks.factor(reached), max(map(self._times, rounds), default=1)
        beyond = [one for one in rounds if one.last.compression > reached]
        halfway = find_halfway(reached, [one.last.compression for one in beyond if self._times(one) == times])
        if math.isfinite(halfway):
            if halfway >= LEAST_STEP:
                return NextRound(factor * halfway, within, times)
            times *= LONGER
        elif not beyond:  # a longer round has come as far as any before, and goes on in smaller steps
            step = self.pruning.step_factor ** (1 / times)
            return NextRound(factor * step, within, times) if self.count_rounds(factor) else None
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
    labels: Iterable[str],
    read_scores: Callable[[], Mapping[str, Tensor]],
    to_params: Callable[[Mapping[str, float]], Params],
    compression: Callable[[Params], float],
    target: float,
) -> Params | None:
    """The parameters that the lowest threshold makes whose `compression`, within the bounds, reaches the target.

    Of each layer or group, the share of its units leaves whose scores are not above the threshold. `read_scores` gives
    them by label; units that are gone have 0. None where the bounds of the `labels` end below the target: nothing is
    read then.
    """
    if compression(to_params(dict.fromkeys(labels, 1.0))) < target:
        return None
    scores = {label: values.detach().flatten().double().sort().values for label, values in read_scores().items()}

    def params_at(threshold: float) -> Params:
        bound = torch.tensor(threshold, dtype=torch.float64)
        removed = {label: int(torch.searchsorted(values, bound, right=True)) for label, values in scores.items()}
        return to_params({label: count / len(scores[label]) for label, count in removed.items()})

    low, high = 0.0, max(float(values[-1]) for values in scores.values())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if compression(params_at(middle)) < target:
            low = middle
        else:
            high = middle
    return params_at(high)
