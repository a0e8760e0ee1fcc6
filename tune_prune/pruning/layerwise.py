"""Pruning under an accuracy tradeoff, a layer at a time: a step that costs too much is taken back (torch7-pruner)."""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from tune_prune.pruning import masks
from tune_prune.pruning.iterative import Point, State, prune_once, restore_state, retrain, round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Split


@dataclass(frozen=True)
class PruneStep:
    """A point on the way; where layers are pruned one at a time, which one, and whether its step was taken back."""

    point: Point
    layer: str = ""
    reverted: bool = False

    def line(self, rounds: int) -> str:
        """What to say of it."""
        at = f"round {self.point.round}/{rounds}" + (f", layer {self.layer}" if self.layer else "")
        back = "; taken back, the layer is pruned no further" if self.reverted else ""
        return f"{at}: compression {self.point.compression:.5f}, validation error {self.point.error:.2f} %{back}"


def prune_layerwise(
    state: State,
    plan: Plan,
    train: Split,
    validation: Split,
    seed: int,
    tradeoff: float,
    teacher: Tensor | None = None,
    onward: State | None = None,
    done: Sequence[PruneStep] = (),
) -> Iterator[PruneStep]:
    """Take every layer in turn to the ratio of each round, retrain, and measure the validation error in percent.

    Where the error is more than `tradeoff` percentage points above the error before the first step, the step is taken
    back, with all masks and weights that it and its retraining changed; the layer is pruned no further, and the others
    go on. `onward` is how far the state had come already by the points `done`, where the way is gone on with.
    """
    limit = evaluate(state.model, validation).error + tradeoff
    if onward is not None:
        restore_state(state, onward)
    stopped = {each.layer for each in done if each.reverted}
    behind = {(each.point.round, each.layer) for each in done}
    reached = ([dict.fromkeys(plan.ratios, 0.0)] + [each.point.ratios for each in done if not each.reverted])[-1]
    for round_ in range(1, plan.rounds + 1):
        for number, (layer, ratio) in enumerate(plan.ratios_at(round_).items()):
            if layer in stopped or (round_, layer) in behind:
                continue
            began = time.perf_counter()
            before = copy.deepcopy(state)
            generator = round_generator(seed, round_ * len(plan.ratios) + number)
            one = replace(plan, ratios={layer: ratio}, pruners={layer: plan.pruners[layer]}, rounds=1)
            prune_once(state, one, 1, train, generator)
            retrain(state, plan, round_, train, generator, teacher)
            measured = evaluate(state.model, validation)
            ratios = reached | {layer: ratio}
            compressed = masks.compression(state.masks)
            seconds = time.perf_counter() - began
            point = Point(round_, compressed, measured.error, measured.loss, seconds, ratios)
            # a loss that is not a number has no error to speak of: the step cost everything
            reverted = measured.error > limit or not math.isfinite(measured.loss)
            if reverted:
                stopped.add(layer)
                restore_state(state, before)
            else:
                reached = ratios
            yield PruneStep(point, layer, reverted)
