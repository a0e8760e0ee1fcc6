"""How much each layer bears: one layer pruned alone, from the dense model, over a grid of ratios."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_prune.pruning import criteria, granularity, iterative, masks, recalibration
from tune_prune.pruning.iterative import round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import CachedStatistics, Context, draw_sample
from tune_prune.tasks.metrics import evaluate, logits
from tune_prune.tasks.models import sequential_parts
from tune_prune.tasks.splits import Split
from tune_prune.tasks.task import Task

GRID = (
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.925,
    0.95,
    0.96,
    0.97,
    0.98,
    0.985,
    0.99,
    0.995,
    0.999,
)
"""Ratios that are measured where none are named: closer together where networks begin to break."""


@dataclass(frozen=True, order=True)
class SensitivityJob:
    """One thing to measure: a layer pruned alone by a ratio, and retrained for `steps` of SGD (0: not at all).

    `granularity` is what is removed as one (`granularity.py`).
    """

    layer: str
    pruner: str
    ratio: float
    steps: int = 0
    lr: float = 0.01
    seed: int = 0
    granularity: str = "weight"


@dataclass(frozen=True)
class SensitivityResult:
    """What a cell measured on validation images: error in percent, loss in nats, seconds of wall-clock.

    `kept` are the weights that are left of the layer's `total`.
    """

    cell: SensitivityJob
    kept: int
    total: int
    val_error: float
    val_loss: float
    seconds: float


def measure_retrained(
    task: Task, cell: SensitivityJob, device: torch.device, known: CachedStatistics | None = None
) -> SensitivityResult:
    """Measure one cell that retrains; `known` are statistics that are not measured again."""
    began = time.perf_counter()
    ratios, pruners = {cell.layer: cell.ratio}, {cell.layer: cell.pruner}
    plan = Plan(ratios, pruners, final_steps=cell.steps, lr=cell.lr, granularity=cell.granularity)
    state = iterative.initial_state(task.dense_model(device))
    point = next(iterative.prune(state, plan, task.train, task.validation, cell.seed, known=known))
    kept, total = masks.kept_counts(state.masks)[cell.layer]
    return SensitivityResult(cell, kept, total, point.error, point.loss, time.perf_counter() - began)


def measure_without_retraining(
    task: Task, cells: Iterable[SensitivityJob], device: torch.device, known: CachedStatistics | None = None
) -> Iterator[SensitivityResult]:
    """Measure cells that do not retrain: scores once a pruner, what comes before a layer once a layer."""
    rows: dict[tuple[int, str], dict[str, list[SensitivityJob]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        rows[cell.seed, cell.pruner][cell.layer].append(cell)
    for (seed, pruner), layers in rows.items():
        model = task.dense_model(device)
        generator = round_generator(seed, 1)
        sample = draw_sample(task.train, Plan.sample, generator)
        scores = criteria.score_layers(
            dict.fromkeys(layers, pruner), Context(model, sample, generator, known=known or {})
        )
        for layer, row in layers.items():
            yield from _row(model, layer, row, scores[layer], task.validation, sample.inputs)


def _row(
    model: nn.Module, layer: str, row: list[SensitivityJob], scores: Tensor, validation: Split, sample: Tensor
) -> Iterator[SensitivityResult]:
    weight = masks.prunable(model)[layer]
    dense, everything = weight.detach().clone(), masks.dense_masks(model)[layer]
    rest, split, inputs = _from_layer(model, weight, validation, sample)
    turned = layer in masks.transposed_layers(model)
    buffers = [(buffer, buffer.clone()) for buffer in rest.buffers()]
    for cell in row:
        began = time.perf_counter()
        mask = granularity.shrink(everything, scores, cell.ratio, cell.granularity, turned)
        with torch.no_grad():
            weight.masked_fill_(mask == 0, 0.0)
        if cell.ratio:
            recalibration.recalibrate(rest, inputs)
        measured = evaluate(rest, split)
        with torch.no_grad():
            weight.copy_(dense)
            for buffer, was in buffers:
                buffer.copy_(was)
        kept = int(torch.count_nonzero(mask))
        yield SensitivityResult(cell, kept, mask.numel(), measured.error, measured.loss, time.perf_counter() - began)


def _from_layer(model: nn.Module, weight: Tensor, split: Split, sample: Tensor) -> tuple[nn.Module, Split, Tensor]:
    """What is left to run when all before a layer was run once: in an `nn.Sequential`, from that layer on."""
    parts = sequential_parts(model)
    for at, part in enumerate(parts):
        if at > 0 and any(parameter is weight for parameter in part.parameters()):
            before, rest = nn.Sequential(*parts[:at]), nn.Sequential(*parts[at:])
            behind = logits(before, sample) if recalibration.batch_norms(rest) else sample[:0]
            return rest, Split(logits(before, split.inputs), split.labels), behind
    return model, split, sample


def make_jobs(
    model: nn.Module,
    layers: Iterable[str],
    pruners: Iterable[str],
    ratios: Iterable[float],
    steps: int,
    lr: float,
    seed: int,
) -> list[SensitivityJob]:
    """Every combination, layer by layer; all layers of the model where none are named."""
    chosen = list(layers) or list(masks.prunable(model))
    every = itertools.product(pruners, chosen, ratios)
    return [SensitivityJob(layer, pruner, ratio, steps, lr, seed) for pruner, layer, ratio in every]


def group_curves(found: Iterable[SensitivityResult]) -> Mapping[tuple[str, str], list[SensitivityResult]]:
    """What was measured by (layer, pruner), ascending in ratio."""
    by_curve: dict[tuple[str, str], list[SensitivityResult]] = defaultdict(list)
    for sensed in sorted(found, key=lambda sensed: sensed.cell):
        by_curve[sensed.cell.layer, sensed.cell.pruner].append(sensed)
    return by_curve
