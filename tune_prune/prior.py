"""First guesses: each layer pruned alone, without retraining, tells how to spend a loss best over the layers.

Where networks begin to break, the rise of the loss over the share that a layer keeps is close to a power law, and so
one is fitted there (`curves.py`): a measured curve ends at the loss of a network that guesses, and would say that a
broken layer can as well be removed whole. A few levels of what the curves say make the guesses.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from tune_prune.hpo.groups import LossCurve, allocate_weights
from tune_prune.hpo.parameters import Choice, Domain, Range
from tune_prune.pruning import sensitivity
from tune_prune.pruning.sensitivity import SensitivityJob
from tune_prune.pruning.statistics import CachedStatistics, draw_sample
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task

GRID = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
RISES = (0.003, 1.0)
"""The rises of the loss, in nats, between which curves are fitted: above noise, and below breaking down."""

IMAGES = 1000
"""Training images that the loss is measured on, where that is little beside what the search will train on."""

LEAST_IMAGES, SHARE = 100, 0.1
"""Fewer tell nothing, and measuring takes no more than this share of what training will take."""

POWERS = (0.5, 6.0)
"""What a fitted power is kept within."""

UNMEASURED = 2.0
"""The power where too few ratios of a layer lie between the rises: what is typical of those that can be fitted."""


def images_for(trained_on: float, layers: int) -> int:
    """How many images to measure so many layers on, where a search will train on `trained_on` images, repeats counted.

    None where that would be too few. A step of training costs about three times as much an image as measuring.
    """
    images = int(SHARE * 3 * trained_on / (layers * len(GRID)))
    return min(IMAGES, images) if images >= LEAST_IMAGES else 0


def measure(
    task: Task,
    ratios: Mapping[str, Domain],
    pruner: str,
    device: torch.device,
    known: CachedStatistics | None = None,
    images: int = IMAGES,
    granularity: str = "weight",
) -> dict[str, LossCurve]:
    """The curves of the layers with these ratios, by label: fixed numbers, or ranges that bound what is kept."""
    sample = draw_sample(task.train, images, torch.Generator().manual_seed(0))
    on = replace(task, validation=sample).to(device)
    dense = evaluate(on.dense_model(device), on.validation).loss
    cells = [SensitivityJob(layer, pruner, ratio, granularity=granularity) for layer in ratios for ratio in GRID]
    found: dict[str, list[tuple[float, float]]] = {layer: [] for layer in ratios}
    weights = {}
    for sensed in sensitivity.measure_without_retraining(on, cells, device, known):
        weights[sensed.cell.layer] = sensed.total
        found[sensed.cell.layer].append((sensed.kept / sensed.total, sensed.val_loss - dense))
    return {layer: LossCurve(weights[layer], *_fit(found[layer]), *_bounds(knob)) for layer, knob in ratios.items()}


def _fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Scale and power by least squares in logarithms, over the (keep, rise) between the rises that count."""
    used = [(math.log(keep), math.log(rise)) for keep, rise in points if RISES[0] < rise < RISES[1] and keep > 0]
    if not used:  # all or nothing: the layer is safe as far as it is measured, or breaks at once
        keep, rise = min(points, key=lambda point: abs(point[1] - RISES[0]))
        return max(rise, RISES[0]) * max(keep, 1e-3) ** UNMEASURED, UNMEASURED
    x, y = [u for u, _ in used], [v for _, v in used]
    middle, height = sum(x) / len(x), sum(y) / len(y)
    spread = sum((u - middle) ** 2 for u in x)
    slope = sum((u - middle) * (v - height) for u, v in used) / spread if spread else -UNMEASURED
    power = min(max(-slope, POWERS[0]), POWERS[1])
    return math.exp(height + power * middle), power


def _bounds(knob: Domain) -> tuple[float, float]:
    if isinstance(knob, Range):
        return 1 - knob.high, 1 - knob.low
    ratios = [float(ratio) for ratio in (knob.options if isinstance(knob, Choice) else [knob])]
    return 1 - max(ratios), 1 - min(ratios)


def levels(curves: Mapping[str, LossCurve], others: int, factors: Sequence[float]) -> Iterator[dict[str, float]]:
    """For each factor, ascending, the ratios of all layers that reach it at the least rise of the loss.

    `others` are the weights of layers that are not pruned. What the bounds do not allow comes as near as they do; a
    level that is no further than the one before is left out. No ratio falls from one level to the next.
    """
    total = others + sum(curve.weights for curve in curves.values())
    before: dict[str, float] = {}
    for factor in factors:
        ratios = {layer: 1 - share for layer, share in allocate_weights(curves, total / factor - others).items()}
        if ratios != before:
            yield ratios
        before = ratios


def spaced(count: int, first: float, last: float) -> list[float]:
    """So many factors, evenly spaced in their logarithm."""
    if count == 1:
        return [first]
    return [first * (last / first) ** (i / (count - 1)) for i in range(count)]
