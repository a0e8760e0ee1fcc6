"""Iterative pruning: measure, score, mask, retrain; a point every round."""

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tune_prune import criteria, masks, norms
from tune_prune.dropout import scaled_dropout
from tune_prune.measure import Context, draw_sample
from tune_prune.recipe import Recipe
from tune_prune.schedule import schedules
from tune_prune.splits import Split
from tune_prune.training import DivergedError, Measured, evaluate, fit

Known = Mapping[str, Mapping[str, Tensor]]
"""Statistics by name and layer label."""


@dataclass(frozen=True)
class Plan:
    """How to prune: final ratio and pruner of every layer that is pruned, rounds, and the retraining of each round.

    `steps` of SGD follow every round but the last, which has `final_steps`; 0 means no retraining. `sample` training
    images serve the statistics that the pruners ask for. With `reload` every round starts from the unpruned model, so
    that its point is that ratio's alone. `weight_decay` is an L2 penalty on the weights, `l1` an L1 penalty. With
    `scale_dropout` the model's dropout shrinks with its layers (`dropout.py`).
    """

    ratios: Mapping[str, float]
    pruners: Mapping[str, str]
    rounds: int = 1
    schedule: str = "cubic"
    steps: int = 0
    final_steps: int = 0
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    l1: float = 0.0
    batch_size: int = 128
    distill: float = 0.0
    temperature: float = 4.0
    sample: int = 1024
    reload: bool = False
    scale_dropout: bool = False

    def ratios_at(self, round_: int) -> dict[str, float]:
        """The ratios of a round counted from 1; those of the last round are the final ones exactly."""
        if round_ == self.rounds:
            return dict(self.ratios)
        ratio_at = schedules[self.schedule]
        return {label: ratio_at(ratio, round_ / self.rounds) for label, ratio in self.ratios.items()}

    def rounds_within(self, reached: Mapping[str, float]) -> int:
        """How many rounds, the last left out, ask for no more than the ratios that were reached already."""
        done = 0
        while done + 1 < self.rounds and all(r <= reached.get(k, 0.0) for k, r in self.ratios_at(done + 1).items()):
            done += 1
        return done

    def recipe_at(self, round_: int) -> Recipe:
        """How a round retrains."""
        return Recipe(
            steps=self.final_steps if round_ == self.rounds else self.steps,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            l1=self.l1,
            batch_size=self.batch_size,
            distill=self.distill,
            temperature=self.temperature,
        )


@dataclass(frozen=True)
class Point:
    """What one round measured: compression in [0, 1], error in percent and loss in nats on validation images.

    `ratios` are those the round's schedule asked for, or what a layer had lost before where that was more; `seconds` is
    the round's wall-clock time.
    """

    round: int
    compression: float
    error: float
    loss: float
    seconds: float
    ratios: dict[str, float] = field(default_factory=dict)

    @property
    def factor(self) -> float:
        """1 / (1 - compression)."""
        return masks.factor(self.compression)


@dataclass
class State:
    """A model on its way: weights and masks, changed in place round by round, and how many rounds are done."""

    model: nn.Module
    masks: dict[str, Tensor]
    rounds_done: int = 0


def start(model: nn.Module) -> State:
    """The state before the first round: nothing removed."""
    return State(model, masks.dense(model))


def round_generator(seed: int, round_: int) -> torch.Generator:
    """A round's random source."""
    # one stream a round, so that a run resumed between rounds goes on exactly as it would have
    return torch.Generator().manual_seed((seed * 1_000_003 + round_) % 2**63)


def put_back(state: State, earlier: State) -> None:
    """Give a state the weights and masks of a copy made earlier; the rounds done stay counted."""
    state.model.load_state_dict(earlier.model.state_dict())
    state.masks = {label: mask.clone() for label, mask in earlier.masks.items()}


def prune_once(
    state: State, plan: Plan, round_: int, train: Split, generator: torch.Generator, known: Known | None = None
) -> None:
    """Measure, score and mask: bring the state to the ratios of a round, without retraining.

    Running statistics of batch norms are measured anew on the sample that the scores are from.
    """
    sample = draw_sample(train, plan.sample, generator)
    scores = criteria.score(plan.pruners, Context(state.model, sample, generator, known=known or {}))
    before = masks.compression(state.masks)
    for label, ratio in plan.ratios_at(round_).items():
        state.masks[label] = masks.shrink(state.masks[label], scores[label], ratio)
    masks.apply(state.model, state.masks)
    if masks.compression(state.masks) > before:
        norms.reestimate(state.model, sample.inputs)


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
    known: Known | None = None,
) -> Iterator[Point]:
    """Go through the rounds that the state has not done yet, and yield a point after each.

    `teacher` holds the dense model's logits [n, classes] on the training images, for distillation. `known` are
    statistics of the dense model that every round takes as they are instead of measuring them anew.
    """
    unpruned = copy.deepcopy(state) if plan.reload else None
    for round_ in range(state.rounds_done + 1, plan.rounds + 1):
        began = time.perf_counter()
        if unpruned is not None:
            put_back(state, unpruned)
        generator = round_generator(seed, round_)
        prune_once(state, plan, round_, train, generator, known)
        retrain(state, plan, round_, train, generator, teacher)
        measured: Measured = evaluate(state.model, validation)
        if not math.isfinite(measured.loss):
            raise DivergedError(f"the validation loss became {measured.loss} in round {round_} at lr {plan.lr:g}")
        state.rounds_done = round_
        yield Point(
            round=round_,
            compression=masks.compression(state.masks),
            error=measured.error,
            loss=measured.loss,
            seconds=time.perf_counter() - began,
            ratios=masks.reached(state.masks, plan.ratios_at(round_)),
        )
