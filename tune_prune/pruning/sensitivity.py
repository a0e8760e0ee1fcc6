"""Sensitivity analysis: each layer of the dense model pruned alone, over a grid of ratios."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_prune.pruning import criteria, granularity, iterative, masks, recalibration
from tune_prune.pruning.channels import mixture, removal
from tune_prune.pruning.channels.counting import count_channels
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.norms import set_kept_by_norm
from tune_prune.pruning.channels.tracer import find_inputs
from tune_prune.pruning.iterative import round_generator
from tune_prune.pruning.plan import WEIGHTS, Plan
from tune_prune.pruning.statistics import CachedStatistics, Context
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import sequential_parts
from tune_prune.tasks.splits import AnySplit, Split
from tune_prune.tasks.task import Task

GRID = (
    0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9,
    0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999,
)  # fmt: skip
"""The ratios measured by default: denser where the error of networks begins to rise steeply."""

HASH_DIGITS = 12
"""Hexadecimal digits of a hash in a table."""


@dataclass(frozen=True, order=True)
class SensitivityJob:
    """One measurement: a layer pruned alone by a ratio, then retrained for `steps` steps of SGD (0: not retrained).

    `granularity` names the units that are removed whole (`granularity.py`), `batch_size` is that of the retraining,
    `pruner_code` a hash of the code of a user's own pruner.
    """

    layer: str
    pruner: str
    ratio: float
    steps: int = 0
    lr: float = 0.01
    seed: int = 0
    granularity: str = "weight"
    batch_size: int = Plan.batch_size
    pruner_code: str = ""


@dataclass(frozen=True)
class SensitivityResult:
    """The result of a job: validation metric, validation loss in nats, wall-clock seconds.

    `kept` is the number of the layer's `total` weights that are left.
    """

    job: SensitivityJob
    kept: int
    total: int
    val_metric: float
    val_loss: float
    seconds: float


def make_jobs(
    model: nn.Module,
    layers: Iterable[str],
    pruners: Iterable[str],
    ratios: Iterable[float],
    steps: int,
    lr: float,
    seed: int,
    batch_size: int = Plan.batch_size,
    granularity: str = "weight",
) -> list[SensitivityJob]:
    """Makes a job of every combination, pruner by pruner and layer by layer; no layers means all of the model."""
    chosen, pruners = list(layers) or list(masks.prunable(model)), list(pruners)
    codes = {name: code[:HASH_DIGITS] for name, code in criteria.hash_pruners(pruners).items()}
    combinations = itertools.product(pruners, chosen, ratios)
    return [
        SensitivityJob(layer, pruner, ratio, steps, lr, seed, granularity, batch_size, codes.get(pruner, ""))
        for pruner, layer, ratio in combinations
    ]


def measure_retrained(
    task: Task, job: SensitivityJob, device: torch.device, cached: CachedStatistics | None = None
) -> SensitivityResult:
    """Measures a job that retrains; `cached` statistics are not measured again."""
    began = time.perf_counter()
    ratios, pruners = {job.layer: job.ratio}, {job.layer: job.pruner}
    plan = Plan(
        ratios, pruners, final_steps=job.steps, lr=job.lr, granularity=job.granularity, batch_size=job.batch_size
    )
    state = iterative.initial_state(task.dense_model(device))
    point = next(iterative.prune(state, plan, task.train, task.validation, job.seed, cached=cached))
    if job.granularity in granularity.GROUPED:
        kept, total = _count_group(state.model, state.groups, state.masks, job)
    else:
        kept, total = masks.kept_counts(state.masks)[job.layer]
    return SensitivityResult(job, kept, total, point.metric, point.loss, time.perf_counter() - began)


def measure_without_retraining(
    task: Task, jobs: Iterable[SensitivityJob], device: torch.device, cached: CachedStatistics | None = None
) -> Iterator[SensitivityResult]:
    """Measures jobs that do not retrain; `cached` statistics are not measured again.

    Layers are scored once for each pruner and seed, and the part of the network before a layer is run once for it.
    """
    groups: dict[tuple[int, str], dict[str, list[SensitivityJob]]] = defaultdict(lambda: defaultdict(list))
    for job in jobs:
        groups[job.seed, job.pruner][job.layer].append(job)
    for (seed, pruner), layers in groups.items():
        model = task.dense_model(device)
        generator = round_generator(seed, 1)
        sample = task.train.draw(Plan.sample, generator)
        context = Context(model, sample, generator, cached=cached or {})
        channels = [job for of_layer in layers.values() for job in of_layer if job.granularity in granularity.GROUPED]
        if channels:
            yield from _measure_groups(context, channels, task.validation)
            continue
        scores = criteria.score_layers(dict.fromkeys(layers, pruner), context)
        for layer, of_layer in layers.items():
            yield from _measure_layer(model, layer, of_layer, scores[layer], task.validation, sample)


def _measure_layer(
    model: nn.Module, layer: str, jobs: list[SensitivityJob], scores: Tensor, validation: AnySplit, sample: AnySplit
) -> Iterator[SensitivityResult]:
    """Measures the jobs of one layer with one pruner; weights and running statistics are put back after each."""
    weight = masks.prunable(model)[layer]
    dense_weight, dense_mask = weight.detach().clone(), masks.dense_masks(model)[layer]
    rest, split, rest_sample = _split_at_layer(model, weight, validation, sample)
    outputs_axis = masks.outputs_axes(model)[layer]
    dense_buffers = [(buffer, buffer.clone()) for buffer in rest.buffers()]
    for job in jobs:
        began = time.perf_counter()
        mask = granularity.shrink(dense_mask, scores, job.ratio, job.granularity, outputs_axis)
        with torch.no_grad():
            weight.masked_fill_(mask == 0, 0.0)
        if job.ratio:
            recalibration.recalibrate(rest, rest_sample)
        measured = evaluate(rest, split)
        with torch.no_grad():
            weight.copy_(dense_weight)
            for buffer, value in dense_buffers:
                buffer.copy_(value)
        kept = int(torch.count_nonzero(mask))
        yield SensitivityResult(job, kept, mask.numel(), measured.metric, measured.loss, time.perf_counter() - began)


def _measure_groups(
    context: Context, jobs: Sequence[SensitivityJob], validation: AnySplit
) -> Iterator[SensitivityResult]:
    """Measures jobs that prune the channels or blocks of one group; everything is put back after each.

    The weights that a result counts are those of all layers that compute or read the channels.
    """
    model, sample = context.model, context.sample
    inputs = find_inputs(model, sample)
    by_kind = {kind: find_groups(model, inputs, kind) for kind in dict.fromkeys(job.granularity for job in jobs)}
    groups = {group.name: group for found in by_kind.values() for group in found}
    dense = {name: value.clone() for name, value in model.state_dict().items()}
    for job in jobs:
        began = time.perf_counter()
        plan = Plan({job.layer: job.ratio}, {job.layer: job.pruner}, granularity=job.granularity)
        own = [groups[job.layer]] if job.layer in groups else list(groups.values())  # the latter for a layer's weights
        made = mixture.prune(context, own, masks.dense_masks(model), plan, plan.ratios)
        masks.apply(model, made)
        if job.ratio:
            recalibration.recalibrate(model, sample)
        measured = evaluate(model, validation)
        model.load_state_dict(dense)
        set_kept_by_norm(model, {})
        kept, total = _count_group(model, list(groups.values()), made, job)
        yield SensitivityResult(job, kept, total, measured.metric, measured.loss, time.perf_counter() - began)


def _count_group(
    model: nn.Module, groups: Sequence[Group], made: Mapping[str, Tensor], job: SensitivityJob
) -> tuple[int, int]:
    """Counts the weights that are left, and all, of the layers that compute or read channels of the job's group.

    Where the job is of single weights in a mixture, those of its layer in the masks `made`.
    """
    if job.layer.startswith(WEIGHTS):
        return masks.kept_counts(made)[job.layer.removeprefix(WEIGHTS)]
    total = count_channels(model, groups).touched(job.layer)
    group = next(group for group in groups if group.name == job.layer)
    return round(total * removal.count_left_of(group, job.ratio) / group.count), total


def _split_at_layer(
    model: nn.Module, weight: Tensor, split: AnySplit, sample: AnySplit
) -> tuple[nn.Module, AnySplit, AnySplit]:
    """Runs the parts of an `nn.Sequential` before a layer once, on the validation split and on the sample.

    Returns the parts from that layer on, with their inputs for the split and for the sample; the latter is empty where
    no batch norm needs it. Any other model is returned whole, with both as they are, and so is one of another task.
    """
    if not (isinstance(split, Split) and isinstance(sample, Split)):
        return model, split, sample
    parts = sequential_parts(model)
    for position, part in enumerate(parts):
        if position > 0 and any(parameter is weight for parameter in part.parameters()):
            before, rest = nn.Sequential(*parts[:position]), nn.Sequential(*parts[position:])
            if not recalibration.batch_norms(rest):
                sample = sample.head(0)
            else:
                sample = Split(sample.scores(before), sample.labels)
            return rest, Split(split.scores(before), split.labels), sample
    return model, split, sample


def group_curves(results: Iterable[SensitivityResult]) -> Mapping[tuple[str, str], list[SensitivityResult]]:
    """Groups results by (layer, pruner), each group ascending in ratio."""
    curves: dict[tuple[str, str], list[SensitivityResult]] = defaultdict(list)
    for result in sorted(results, key=lambda result: result.job):
        curves[result.job.layer, result.job.pruner].append(result)
    return curves
