"""Iterative pruning: measure, score, mask, retrain; a point every round."""

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tune_prune.pruning import criteria, granularity, masks, recalibration
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.recalibration import scaled_dropout
from tune_prune.pruning.statistics import CachedStatistics, Context, draw_sample
from tune_prune.tasks.metrics import Evaluation, evaluate
from tune_prune.tasks.splits import Split
from tune_prune.training.loop import DivergedError, fit


@dataclass(frozen=True)
class Point:
    """What one round measured: compression in [0, 1], error in percent and loss in nats on validation images.

    `ratios` are those the round's schedule asked for, or what a layer has lost where that is another count; `pooled` is
    that of all these layers together where they are pruned as one; `seconds` is the round's wall-clock time.
    """

    round: int
    compression: float
    error: float
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
        """The ratios in the plan's terms: where layers are pruned as one, that of all of them."""
        return self.ratios if self.pooled is None else dict.fromkeys(self.ratios, self.pooled)


@dataclass
class State:
    """A model on its way: weights and masks, changed in place round by round, and how many rounds are done."""

    model: nn.Module
    masks: dict[str, Tensor]
    rounds_done: int = 0


def initial_state(model: nn.Module) -> State:
    """The state before the first round: nothing removed."""
    return State(model, masks.dense_masks(model))


def round_generator(seed: int, round_: int) -> torch.Generator:
    """A round's random source."""
    # one stream a round, so that a run resumed between rounds goes on exactly as it would have
    return torch.Generator().manual_seed((seed * 1_000_003 + round_) % 2**63)


def restore_state(state: State, earlier: State) -> None:
    """Give a state the weights and masks of a copy made earlier; the rounds done stay counted."""
    state.model.load_state_dict(earlier.model.state_dict())
    state.masks = {label: mask.clone() for label, mask in earlier.masks.items()}


def prune_once(
    state: State,
    plan: Plan,
    round_: int,
    train: Split,
    generator: torch.Generator,
    known: CachedStatistics | None = None,
) -> None:
    """Measure, score and mask: bring the state to the ratios of a round, without retraining.

    Running statistics of batch norms are measured anew on the sample that the scores are from.
    """
    sample = draw_sample(train, plan.sample, generator)
    scores = criteria.score_layers(plan.pruners, Context(state.model, sample, generator, known=known or {}))
    before = masks.compression(state.masks)
    state.masks |= _shrunk(state, plan, plan.ratios_at(round_), scores)
    masks.apply(state.model, state.masks)
    if masks.compression(state.masks) > before:
        recalibration.recalibrate(state.model, sample.inputs)


def _shrunk(state: State, plan: Plan, ratios: Mapping[str, float], scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks of the layers with these ratios, brought there."""
    own = {label: state.masks[label] for label in ratios}
    turned = masks.transposed_layers(state.model)
    if plan.mode == "global" and ratios:
        return granularity.remove(own, scores, next(iter(ratios.values())), plan.granularity, turned)
    return {
        label: granularity.shrink(mask, scores[label], ratios[label], plan.granularity, label in turned)
        for label, mask in own.items()
    }


def retrain(
    state: State, plan: Plan, round_: int, train: Split, generator: torch.Generator, teacher: Tensor | None = None
) -> None:
    """Train what is left as a round of the plan does; removed weights stay exactly zero."""
    recipe = plan.recipe_at(round_)
    if not recipe.steps:
        return
    layers = masks.prunable(state.model)
    pairs = [(layers[label], mask) for label, mask in state.masks.items()]
    with scaled_dropout(state.model, state.masks) if plan.scale_dropout else nullcontext():
        fit(state.model, train, recipe, generator, masks=pairs, teacher=teacher)
    masks.apply(state.model, state.masks)


def prune(
    state: State,
    plan: Plan,
    train: Split,
    validation: Split,
    seed: int,
    teacher: Tensor | None = None,
    known: CachedStatistics | None = None,
    onward: State | None = None,
) -> Iterator[Point]:
    """Go through the rounds that the state has not done yet, and yield a point after each.

    `teacher` holds the dense model's logits [n, classes] on the training images, for distillation. `known` are
    statistics of the dense model that every round takes as they are instead of measuring them anew. `onward` is how far
    the state had come already, where the way is gone on with.
    """
    unpruned = copy.deepcopy(state) if plan.reload else None
    if onward is not None:
        restore_state(state, onward)
        state.rounds_done = onward.rounds_done
    for round_ in range(state.rounds_done + 1, plan.rounds + 1):
        began = time.perf_counter()
        if unpruned is not None:
            restore_state(state, unpruned)
        generator = round_generator(seed, round_)
        prune_once(state, plan, round_, train, generator, known)
        retrain(state, plan, round_, train, generator, teacher)
        measured: Evaluation = evaluate(state.model, validation)
        if not math.isfinite(measured.loss):
            raise DivergedError(f"the validation loss became {measured.loss} in round {round_} at lr {plan.lr:g}")
        state.rounds_done = round_
        asked = plan.ratios_at(round_)
        yield Point(
            round=round_,
            compression=masks.compression(state.masks),
            error=measured.error,
            loss=measured.loss,
            seconds=time.perf_counter() - began,
            ratios=masks.actual_ratios(state.masks, asked),
            pooled=masks.global_ratio(state.masks, asked) if plan.mode == "global" and asked else None,
        )
