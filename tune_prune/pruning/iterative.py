"""Prunes iteratively: each round measures statistics, scores, masks and retrains, and yields a point."""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from tune_prune.pruning import criteria, granularity, masks, recalibration
from tune_prune.pruning.channels import mixture
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.norms import kept_by_norm, set_kept_by_norm
from tune_prune.pruning.channels.slicing import narrowed
from tune_prune.pruning.channels.tracer import find_inputs
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.recalibration import scaled_dropout
from tune_prune.pruning.statistics import CachedStatistics, Context
from tune_prune.tasks.metrics import Evaluation, evaluate
from tune_prune.tasks.parts import Part
from tune_prune.tasks.splits import AnySplit
from tune_prune.training.loop import DivergedError, Teacher, fit


@dataclass(frozen=True)
class Point:
    """The measurements of one round: compression in [0, 1], metric and loss in nats on validation images.

    `ratios` are those of the round's schedule, or a layer's actual ratio where another number of weights was removed.
    `pooled`, in mode "global" only, is the ratio of all these layers together; `seconds` is wall-clock time.
    """

    round: int
    compression: float
    metric: float
    loss: float
    seconds: float
    ratios: dict[str, float] = field(default_factory=dict)
    pooled: float | None = None

    @property
    def factor(self) -> float:
        """1 / (1 - compression)."""
        return masks.factor(self.compression)

    @property
    def reached(self) -> dict[str, float]:
        """The ratios as a plan states them: in mode "global" every layer has the ratio of all together."""
        return self.ratios if self.pooled is None else dict.fromkeys(self.ratios, self.pooled)


@dataclass
class State:
    """A model while it is pruned: weights and masks, changed in place by each round, and the number of rounds done.

    `groups` are those of its channels, where channels are pruned.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    rounds_done: int = 0
    groups: Sequence[Group] = ()


def initial_state(model: nn.Module) -> State:
    """Makes the state before the first round, with no weight removed."""
    return State(model, masks.dense_masks(model))


def round_generator(seed: int, round_: int) -> torch.Generator:
    """Makes a round's random generator."""
    # one stream a round, so that a run resumed between rounds repeats exactly the rounds that are left
    return torch.Generator().manual_seed((seed * 1_000_003 + round_) % 2**63)


def restore_state(state: State, earlier: State) -> None:
    """Gives a state the weights and masks of an earlier copy; the number of rounds done stays."""
    state.model.load_state_dict(earlier.model.state_dict())
    set_kept_by_norm(state.model, kept_by_norm(earlier.model))
    state.masks = {label: mask.clone() for label, mask in earlier.masks.items()}


def find_state_groups(state: State, plan: Plan, train: AnySplit) -> Sequence[Group]:
    """The groups of a state: those that it has, else those of the plan's granularity, where it is one of groups."""
    if state.groups or plan.granularity not in granularity.GROUPED:
        return state.groups
    return find_groups(state.model, find_inputs(state.model, train), plan.granularity)


def prune_once(
    state: State,
    plan: Plan,
    round_: int,
    train: AnySplit,
    generator: torch.Generator,
    cached: CachedStatistics | None = None,
) -> None:
    """Prunes the state to the ratios of a round, without retraining: measures statistics, scores and masks.

    Where weights were removed, running statistics of batch norms are measured again, on the sample of the statistics.
    """
    sample = train.draw(plan.sample, generator)
    context = Context(state.model, sample, generator, cached=cached or {})
    before = masks.compression(state.masks)
    state.groups = find_state_groups(state, plan, train)
    if plan.granularity in granularity.GROUPED:
        state.masks |= mixture.prune(context, state.groups, state.masks, plan, plan.ratios_at(round_))
    else:
        scores = criteria.score_layers(plan.pruners, context)
        state.masks |= _shrink_masks(state, plan, plan.ratios_at(round_), scores)
    masks.apply(state.model, state.masks)
    if masks.compression(state.masks) > before:
        with narrowed(state.model, state.groups, state.masks) as (model, _):
            recalibration.recalibrate(model, sample)


class Retrain(Protocol):
    """Retrains a state after a round of pruning, as `retrain` does."""

    def __call__(  # noqa: D102 - said above
        self, state: State, plan: Plan, round_: int, train: AnySplit, generator: torch.Generator,
        teacher: Teacher | None = None, /,
    ) -> None: ...  # fmt: skip


def retrain(
    state: State,
    plan: Plan,
    round_: int,
    train: AnySplit,
    generator: torch.Generator,
    teacher: Teacher | None = None,
    part: Part | None = None,
) -> None:
    """Retrains by the plan's recipe for a round; removed weights stay exactly zero. For `part` see `fit`."""
    recipe = plan.recipe_at(round_)
    if not recipe.steps:
        return
    state.groups = find_state_groups(state, plan, train)
    with narrowed(state.model, state.groups, state.masks) as (model, own_masks):
        pairs = masks.pairs(model, own_masks)
        with scaled_dropout(model, state.masks) if plan.scale_dropout else nullcontext():
            fit(model, train, recipe, generator, masks=pairs, teacher=teacher, part=part)
    masks.apply(state.model, state.masks)


def prune(
    state: State,
    plan: Plan,
    train: AnySplit,
    validation: AnySplit,
    seed: int,
    teacher: Teacher | None = None,
    cached: CachedStatistics | None = None,
    resume_from: State | None = None,
    retrain: Retrain = retrain,
) -> Iterator[Point]:
    """Runs the rounds that the state has not done yet, and yields a point after each.

    `teacher` holds the dense model's logits [n, classes] on the training images, or is the dense model, for
    distillation. `cached` statistics of the dense model are used by every round instead of being measured again. With
    `resume_from`, a state that was saved after some round, the rounds after that one are run; `state` is then the model
    as it was before the first.
    """
    unpruned = copy.deepcopy(state) if plan.reload else None
    if resume_from is not None:
        restore_state(state, resume_from)
        state.rounds_done = resume_from.rounds_done
    for round_ in range(state.rounds_done + 1, plan.rounds + 1):
        started = time.perf_counter()
        if unpruned is not None:
            restore_state(state, unpruned)
        generator = round_generator(seed, round_)
        prune_once(state, plan, round_, train, generator, cached)
        retrain(state, plan, round_, train, generator, teacher)
        with narrowed(state.model, state.groups, state.masks) as (model, _):
            measured: Evaluation = evaluate(model, validation)
        for name, value in (("loss", measured.loss), (validation.objective.metric.name, measured.metric)):
            if not math.isfinite(value):
                raise DivergedError(f"the validation {name} became {value} in round {round_} at lr {plan.lr:g}")
        state.rounds_done = round_
        requested = plan.ratios_at(round_)
        yield Point(
            round=round_,
            compression=masks.compression(state.masks),
            metric=measured.metric,
            loss=measured.loss,
            seconds=time.perf_counter() - started,
            ratios=_actual_ratios(state, plan, requested),
            pooled=masks.global_ratio(state.masks, requested) if plan.mode == "global" and requested else None,
        )


def _actual_ratios(state: State, plan: Plan, requested: Mapping[str, float]) -> dict[str, float]:
    if plan.granularity in granularity.GROUPED:
        return mixture.actual_ratios(state.model, state.groups, state.masks, requested, plan)
    return masks.actual_ratios(state.masks, requested)


def _shrink_masks(
    state: State, plan: Plan, ratios: Mapping[str, float], scores: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Makes new masks, at these ratios, of the layers that have one."""
    before = {label: state.masks[label] for label in ratios}
    axes = masks.outputs_axes(state.model)
    if plan.mode == "global" and ratios:
        ratio, keep_one = next(iter(ratios.values())), not plan.allow_empty
        return granularity.remove(before, scores, ratio, plan.granularity, axes, keep_one=keep_one)
    return {
        label: granularity.shrink(mask, scores[label], ratios[label], plan.granularity, axes[label])
        for label, mask in before.items()
    }
