"""Prunes each layer alone over a grid of ratios: what `tune-prune sensitivity` does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tune_prune.common import files
from tune_prune.common.errors import format_names
from tune_prune.distributed.parallel import collect_results, worker_pool
from tune_prune.pruning import masks, statistics_cache
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.criteria import required_statistics
from tune_prune.pruning.granularity import GROUPED, check_layers, check_name
from tune_prune.pruning.iterative import round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.sensitivity import (
    GRID,
    SensitivityJob,
    SensitivityResult,
    make_jobs,
    measure_retrained,
    measure_without_retraining,
)
from tune_prune.pruning.statistics import CachedStatistics, Context
from tune_prune.results.front import Member
from tune_prune.results.sensitivity_table import SensitivityTable, draw_curves, make_subject
from tune_prune.tasks.fingerprints import fingerprint_task
from tune_prune.tasks.settings import DEFAULT, TaskSettings
from tune_prune.tasks.task import Task, check_trained, prepare_task
from tune_prune.training.loop import check_training, steps_for
from tune_prune.training.resources import Resources
from tune_prune.workflows.space_checks import check_group, count_removable

CSV, PICTURE = "sensitivity.csv", "sensitivity.png"


@dataclass(frozen=True)
class SensitivityRequest:
    """What to measure: each pruner on each layer at each ratio. No layers means all; no ratios, a grid of 20.

    `granularity` names what goes as one; of channels and heads, layers are groups, by their names. Every pruned model
    is retrained for `epochs` at rate `lr`; 0: not at all. `model` and `data` are names or addresses, and `settings` say
    what else the task is.
    """

    model: str
    data: str
    layers: Sequence[str] = ()
    pruners: Sequence[str] = ("mag",)
    ratios: Sequence[float] = ()
    epochs: float = 0.0
    lr: float = 0.01
    seed: int = 0
    force: bool = False
    batch_size: int = Plan.batch_size
    settings: TaskSettings = DEFAULT
    granularity: str = Plan.granularity


def measure_sensitivity(
    request: SensitivityRequest, resources: Resources, out: Path, say: Callable[[str], None]
) -> dict[str, object]:
    """Measures what the table in the folder `out` lacks, and draws the curves; returns the files, and their points.

    Jobs that retrain run on Ray's workers. Raises `UserError` for a pruner or a layer that does not exist.
    """
    files.check_writable(out, "--out")
    device = torch.device(resources.own_device)
    statistics = sorted(required_statistics(request.pruners))
    check_name(request.granularity)
    model = load_dense_model(request.model, None, "--")
    task, _ = prepare_task(request.model, model, request.data, device, say, settings=request.settings, where="--data")
    check_trained(request.model, task.dense, task.validation, request.force)
    if request.epochs:
        check_training(model, task.train)
    jobs = _list_jobs(request, task, device)
    splits = {"training": task.train, "validation": task.validation}
    fingerprint = fingerprint_task(request.model, model, task.weights, splits, request.settings)
    metric = task.metric
    table = SensitivityTable(out / CSV, make_subject(request.model, request.data, fingerprint), metric)
    missing = table.missing(jobs)
    if changed := table.changed_parts(jobs):
        say(f"{out / CSV}: changed since its last row: {format_names(changed)}; measured anew, its rows stay")
    dense = metric.format(task.dense.metric)
    say(f"{len(jobs)} points, {len(jobs) - len(missing)} of them measured already; dense {dense}")
    cached = _measure_statistics(request, statistics, task, device, say) if missing else {}
    if request.epochs:
        out.mkdir(parents=True, exist_ok=True)
        results = _measure_on_workers(task, missing, resources, cached, out / "ray.log")
    else:
        results = measure_without_retraining(task.to(device), missing, device, cached)
    for result in results:
        table.add(result)
        job = result.job
        measured = f"validation {metric.name} {metric.format(result.val_metric)}"
        say(f"layer {job.layer}, {job.pruner}, ratio {job.ratio:g}: {measured}")
    found = [result for result in table.results() if result.job in jobs]
    draw_curves(out / PICTURE, f"{request.model}: each layer pruned alone", found, task.dense.metric, metric)
    return {"csv": CSV, "picture": PICTURE, "points": len(found)}


def _list_jobs(request: SensitivityRequest, task: Task, device: torch.device) -> list[SensitivityJob]:
    """Lists every combination that is asked for."""
    dense, layers = task.dense_model(device), request.layers
    if request.granularity in GROUPED:
        channels = count_removable(dense, task.train.to(device), "--granularity", request.granularity)
        for label in layers:
            check_group(label, channels, "--layer")
        layers = layers or channels.names
        check_layers(dense, layers, request.granularity, "--granularity")
    else:
        masks.require_layers(dense, layers, "--layer")
        check_layers(dense, layers or masks.shapes(dense), request.granularity, "--granularity")
    steps = steps_for(request.epochs, task.train.steps(request.batch_size))
    lr, batch_size = (request.lr, request.batch_size) if request.epochs else (0.0, Plan.batch_size)
    ratios = request.ratios or GRID
    how = steps, lr, request.seed, batch_size, request.granularity
    return make_jobs(dense, layers, request.pruners, ratios, *how)


def _measure_statistics(
    request: SensitivityRequest, names: Sequence[str], task: Task, device: torch.device, say: Callable[[str], None]
) -> CachedStatistics:
    """Measures the statistics of the dense model that the pruners ask for, on the layers that are asked for."""
    sample = task.train.to(device).draw(Plan.sample, round_generator(request.seed, 1))
    generator = round_generator(request.seed, 1)
    layers = None if request.granularity in GROUPED else request.layers or None  # a group's layers are others, too
    context = Context(task.dense_model(device), sample, generator, say, layers=layers)
    return statistics_cache.load_or_measure(names, context)


def _measure_on_workers(
    task: Task, jobs: Sequence[SensitivityJob], resources: Resources, cached: CachedStatistics, log: Path
) -> Iterator[SensitivityResult]:
    """Measures jobs that retrain, on Ray's workers."""
    with worker_pool(task, resources, cached, log) as parallel_map:
        yield from collect_results(parallel_map(measure_retrained, jobs))


def find_hardest_layer(
    task: Task, member: Member, device: torch.device, images: int = Plan.sample
) -> SensitivityResult | None:
    """Prunes each layer of a point alone, as there and without retraining; the result with the highest loss.

    None where the point prunes nothing. `images` is the number of training
    images that cached statistics are measured on.
    """
    params, pruners = member.record.params, member.record.pruners
    plan = params.to_plan()
    pruned = {label: ratio for label, ratio in member.point.ratios.items() if ratio > 0}
    jobs = [
        SensitivityJob(label, pruners[label], ratio, granularity=plan.granularity) for label, ratio in pruned.items()
    ]
    names = sorted(required_statistics({job.pruner for job in jobs}))
    cached = statistics_cache.measure_dense(names, task.dense_model(device), task.train.to(device), images)
    results = measure_without_retraining(task.to(device), jobs, device, cached)
    return max(results, key=lambda result: result.val_loss, default=None)
