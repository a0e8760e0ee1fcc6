"""Prunes one layer at a time under an accuracy tradeoff, and reverts steps that exceed it (torch7-pruner)."""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tune_prune.pruning import masks
from tune_prune.pruning.iterative import Point, State, prune_once, restore_state, retrain, round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import ERROR, Metric, evaluate
from tune_prune.tasks.splits import AnySplit
from tune_prune.training.loop import Teacher


@dataclass(frozen=True)
class PruneStep:
    """A point of a pruning; layer by layer, also the step's layer and whether the step was reverted."""

    point: Point
    layer: str = ""
    reverted: bool = False

    def describe(self, rounds: int, metric: Metric = ERROR) -> str:
        """Describes the step in one line; `rounds` is their total number, `metric` what models are judged by."""
        step = f"round {self.point.round}/{rounds}" + (f", layer {self.layer}" if self.layer else "")
        reverted = "; taken back, the layer is pruned no further" if self.reverted else ""
        measured = f"validation {metric.name} {metric.format(self.point.metric)}"
        return f"{step}: compression {self.point.compression:.5f}, {measured}{reverted}"


def prune_layerwise(
    state: State,
    plan: Plan,
    train: AnySplit,
    validation: AnySplit,
    seed: int,
    tradeoff: float,
    teacher: Teacher | None = None,
    resume_from: State | None = None,
    done: Sequence[PruneStep] = (),
) -> Iterator[PruneStep]:
    """Brings each layer in turn to its ratio of a round, retrains, and measures the validation metric, round by round.

    A step whose metric is more than `tradeoff`, in the metric's unit, worse than that before the first step is
    reverted: all masks and weights that it and its retraining changed are restored, and its layer is pruned no further.
    With `resume_from`, a state that was saved after the steps `done`, the remaining steps are run; `state` is then the
    model as it was before the first.
    """
    cost = validation.objective.metric.cost
    limit = cost(evaluate(state.model, validation).metric) + tradeoff
    if resume_from is not None:
        restore_state(state, resume_from)
    stopped_layers = {step.layer for step in done if step.reverted}
    done_steps = {(step.point.round, step.layer) for step in done}
    ratios = ([dict.fromkeys(plan.ratios, 0.0)] + [step.point.ratios for step in done if not step.reverted])[-1]
    for round_ in range(1, plan.rounds + 1):
        for number, (layer, ratio) in enumerate(plan.ratios_at(round_).items()):
            if layer in stopped_layers or (round_, layer) in done_steps:
                continue
            started = time.perf_counter()
            before = copy.deepcopy(state)
            generator = round_generator(seed, round_ * len(plan.ratios) + number)
            layer_plan = replace(plan, ratios={layer: ratio}, pruners={layer: plan.pruners[layer]}, rounds=1)
            prune_once(state, layer_plan, 1, train, generator)
            retrain(state, plan, round_, train, generator, teacher)
            measured = evaluate(state.model, validation)
            new_ratios = ratios | {layer: ratio}
            compressed = masks.compression(state.masks)
            seconds = time.perf_counter() - started
            point = Point(round_, compressed, measured.metric, measured.loss, seconds, new_ratios)
            # where the loss is not finite the metric means nothing, and the step is reverted
            reverted = not cost(measured.metric) <= limit or not math.isfinite(measured.loss)
            if reverted:
                stopped_layers.add(layer)
                restore_state(state, before)
            else:
                ratios = new_ratios
            yield PruneStep(point, layer, reverted)
