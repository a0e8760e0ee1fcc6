"""Measures the loss curve of each layer pruned alone, without retraining, and fits a power law to it.

Where a network begins to break, the loss rises with the share that is kept close to a power law, which is fitted there
(`hpo/groups.py`). The measured curve itself would mislead: it ends at the loss of a network that guesses at random, as
if a broken layer could as well be removed whole.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from tune_prune.hpo.groups import LossCurve
from tune_prune.hpo.parameters import Choice, Domain, Range
from tune_prune.pruning import recalibration, sensitivity
from tune_prune.pruning.sensitivity import SensitivityJob
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task

GRID = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
"""The ratios at which a layer's curve is measured."""

RISES = (0.003, 1.0)
"""The rises of the loss, in nats, between which curves are fitted: above noise, and below breaking down."""

IMAGES = 1000
"""Training images on which the loss is measured, unless that would take too long."""

LEAST_IMAGES, SHARE = 100, 0.1
"""The fewest images that give a usable curve; and the most time for measuring, as a share of the training time."""

POWERS = (0.5, 6.0)
"""The bounds of a fitted power."""

UNMEASURED = 2.0
"""The power of a layer with too few ratios between the rises: a typical value of fitted ones."""


def count_images(trained_on: float, layers: int, model: nn.Module) -> int:
    """The number of images to measure `layers` layers on, for a search that trains on `trained_on` images with repeats.

    0 where it would be less than `LEAST_IMAGES`. An image costs about three times as much in training as in measuring.
    Batch norms are measured again, on further images, for each ratio.
    """
    images = int(SHARE * 3 * trained_on / (layers * len(GRID)))
    images -= recalibration.IMAGES if recalibration.batch_norms(model) else 0
    return min(IMAGES, images) if images >= LEAST_IMAGES else 0


def measure_curves(
    task: Task,
    ratios: Mapping[str, Domain],
    pruner: str,
    device: torch.device,
    cached: CachedStatistics | None = None,
    images: int = IMAGES,
    granularity: str = "weight",
    on_result: Callable[[], None] = lambda: None,
) -> dict[str, LossCurve]:
    """Measures and fits the curves of layers, by label. The domains of their ratios bound the shares to keep.

    `on_result` is called after each measurement.
    """
    sample = task.train.draw(images, torch.Generator().manual_seed(0))
    sampled = replace(task, validation=sample).to(device)
    dense = evaluate(sampled.dense_model(device), sampled.validation).loss
    jobs = [SensitivityJob(layer, pruner, ratio, granularity=granularity) for layer in ratios for ratio in GRID]
    rises: dict[str, list[tuple[float, float]]] = {layer: [] for layer in ratios}
    weights = {}
    for result in sensitivity.measure_without_retraining(sampled, jobs, device, cached):
        on_result()
        weights[result.job.layer] = result.total
        rises[result.job.layer].append((result.kept / result.total, result.val_loss - dense))
    return {
        layer: LossCurve(weights[layer], *_fit(_keep_some(rises[layer])), *_bounds(domain))
        for layer, domain in ratios.items()
    }


def _keep_some(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Puts half of the lowest share in place of none, which a curve over shares does not reach: of blocks, all go."""
    lowest = min((keep for keep, _ in points if keep > 0), default=1.0)
    return [(keep or lowest / 2, rise) for keep, rise in points]


def _fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Fits scale and power to pairs (kept share, rise of the loss) within `RISES`: least squares in logarithms."""
    used = [(math.log(keep), math.log(rise)) for keep, rise in points if RISES[0] < rise < RISES[1] and keep > 0]
    if not used:  # the layer loses nothing at any measured ratio, or breaks at the first
        keep, rise = min(points, key=lambda point: abs(point[1] - RISES[0]))
        return max(rise, RISES[0]) * max(keep, 1e-3) ** UNMEASURED, UNMEASURED
    x, y = [u for u, _ in used], [v for _, v in used]
    middle, height = sum(x) / len(x), sum(y) / len(y)
    spread = sum((u - middle) ** 2 for u in x)
    slope = sum((u - middle) * (v - height) for u, v in used) / spread if spread else -UNMEASURED
    power = min(max(-slope, POWERS[0]), POWERS[1])
    return math.exp(height + power * middle), power


def _bounds(domain: Domain) -> tuple[float, float]:
    """The lowest and the highest share that a layer may keep."""
    if isinstance(domain, Range):
        return 1 - domain.high, 1 - domain.low
    ratios = [float(ratio) for ratio in (domain.options if isinstance(domain, Choice) else [domain])]
    return 1 - max(ratios), 1 - min(ratios)
