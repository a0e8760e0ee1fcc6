"""Describes what a search would do, without doing it: its parameters, phases, time, memory, and missing packages."""

import math
import os
from importlib.util import find_spec

import psutil
import torch

from tune_prune.common.entrypoints import describe_address
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space
from tune_prune.pruning.plan import WEIGHTS
from tune_prune.results.run_info import RunInfo
from tune_prune.results.trial_params import RATIO
from tune_prune.training.resources import Resources
from tune_prune.workflows.loss_curves import GRID
from tune_prune.workflows.preparation import LoadedTask, Prepared, explain_tradeoff, format_budget, prepare
from tune_prune.workflows.profiling import RAY_START, Timings, measure_memory, measure_timings, train_dense
from tune_prune.workflows.progress import FILES
from tune_prune.workflows.space_checks import describe_doubts
from tune_prune.workflows.status import format_clock

WITHOUT_TRAINING = 0.5
"""Seconds of a round, about, in which nothing is trained or measured: scores, masks, files."""

EXTRAS = {
    "plotly": "interactive charts in report.html: pip install 'tune-prune[report]'",
    "optuna_dashboard": "--dashboard: pip install 'tune-prune[dashboard]'",
    "scipy": "--sampler gp and --certify: pip install 'tune-prune[gp]'",
    "onnxruntime": "export to ONNX: pip install 'tune-prune[onnx]'",
}
"""What a search and what follows it can do with a package that may be missing, and how to get it."""


def describe_search(config: Config, space: Space, loaded: LoadedTask | None = None) -> list[str]:
    """Describes what would be searched, line by line, after the checks of a real run: for `--dry-run`.

    `loaded` as in `prepare`.
    """
    said: list[str] = []
    prepared = prepare(config, space, said.append, loaded)
    info = prepared.info
    what = f"{space.name}: {describe_address(space.model)} on {describe_address(space.data)}"
    tradeoff = info.metric.format_tradeoff(info.acc_tradeoff)
    head = f"{what}, {format_budget(config)}, tradeoff {tradeoff}{explain_tradeoff(config, info.metric)}"
    splits = prepared.task.train.count, prepared.task.validation.count, prepared.load_test().count
    samples = "samples: {:,} for training, {:,} for validation, {:,} for the test".format(*splits)
    return [
        head,
        *describe_doubts(space),
        *info.describe(),
        samples,
        "parameters of a trial:",
        *_list_parameters(space, info),
        *(f"  {line}" for line in (info.channels.describe() if info.channels else ())),
        "phases:",
        *_list_phases(config, space, info),
        *_estimate(config, space, prepared),
        *_list_missing(),
    ]


def _list_parameters(space: Space, info: RunInfo) -> list[str]:
    """The parameters with their domains, in a column of their own the number of weights of each layer."""
    rows = [(name, str(domain)) for name, domain in space.parameters_for(info.ratio_shapes).items()]
    totals = {f"{kind}{label}": total for label, total in info.totals.items() for kind in (RATIO, RATIO + WEIGHTS)}
    width = max(len(f"{name} = {domain}") for name, domain in rows)
    lines = []
    for name, domain in rows:
        of_all = totals.get(name, 0) / sum(info.totals.values())
        weights = f"  {totals[name]:>12,} weights, {100 * of_all:.1f} %" if name in totals else ""
        lines.append(f"  {f'{name} = {domain}'.ljust(width) if weights else f'{name} = {domain}'}{weights}")
    return lines


def _list_phases(config: Config, space: Space, info: RunInfo) -> list[str]:
    """What happens one after the other."""
    points, levels, refine = len(space.initial_params(info.ratio_shapes)), space.initial, space.refine
    layers = sum(name.startswith("ratio/") for name in space.parameters_for(info.ratio_shapes))
    most = levels.trials if config.budget is None else min(levels.trials, max(3, config.budget // 5))
    plan, gradual = space.midpoint(info.ratio_shapes).to_plan(), space.gradual_within(config.budget)
    lines = []
    if most:
        lines.append(f"  measuring layers: {layers} layers, each alone at {len(GRID)} ratios, without training")
    of_levels = f", and up to {most} levels from {levels.min_factor:g}x to {levels.max_factor:g}x" if most else ""
    if gradual is not None:
        way = f"{gradual.rounds} rounds to {gradual.max_factor:g}x, one after the other"
        first, last = gradual.round_steps[0], gradual.round_steps[-1]
        each = f"{first:,} steps each" if first == last else f"{first:,} to {last:,} steps each"
        lines.append(f"  gradual pruning: {way}, {each}")
    lines.append(f"  initial trials: {points} of the space{of_levels}")
    steps = [plan.recipe_at(round_).steps for round_ in range(1, plan.rounds + 1)]
    lines.append(f"  search: sampler {config.sampler}, trials of {len(steps)} rounds, {sum(steps):,} steps each")
    if refine.share:
        share = f"{100 * refine.share:g} % of the trials"
        lines.append(f"  refinement: {share}, of {refine.rounds} rounds, {refine.total_steps:,} steps each")
    else:
        lines.append("  refinement: none")
    if config.confirm:
        lines.append(f"  confirming: each member of the front again from {config.confirm} other seeds")
    if config.refit:
        lines.append("  refitting: each member of the front on training and validation images together")
    certified = f", with certificates at {100 * config.certify:g} %" if config.certify else ""
    return [*lines, f"  testing the front: once, on the test images{certified}"]


def _estimate(config: Config, space: Space, prepared: Prepared) -> list[str]:
    """How long the search would take here, and how much memory; for trials on a cluster, on a machine like this one."""
    resources, info, refine = config.resources, prepared.info, space.refine
    device, plan = torch.device(resources.own_device), space.midpoint(info.ratio_shapes).to_plan()
    timings = measure_timings(prepared.task, plan, device, resources.threads)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        need, here = measure_memory(prepared.task, plan, device), f"the GPU has {format_bytes(total)}"
    else:
        train_dense(prepared.task.dense_model(device), prepared.task.to(device), plan, 1)
        need, memory = psutil.Process().memory_info().rss, psutil.virtual_memory()
        here = f"this machine has {format_bytes(memory.total)}, {format_bytes(memory.available)} free"
    count = _count_concurrent(resources)
    trial = sum(_round(timings, plan.recipe_at(round_).steps) for round_ in range(1, plan.rounds + 1))
    refinement = refine.rounds * _round(timings, refine.total_steps // refine.rounds) if refine.share else 0.0
    average = (1 - refine.share) * trial + refine.share * refinement
    gradual = space.gradual_within(config.budget)
    chain = sum(_round(timings, steps) for steps in gradual.round_steps) if gradual else 0.0
    others = (config.budget or math.inf) - (gradual.rounds if gradual else 0)
    most = max(chain, (others * average + chain) / count) + RAY_START + FILES
    parts = f"a step takes {1000 * timings.step:.3g} ms here, a trial {trial:.0f} s, a refinement {refinement:.0f} s"
    limit = config.time_budget or math.inf
    until = "until the time budget ends" if most >= limit else f"at most about {format_clock(most)}"
    workers = f"{count} worker{'s' if count > 1 else ''}"
    return [
        f"time: {until}; {parts}; {workers} at a time",
        f"memory: about {format_bytes(need)} for each of {workers}; {here}",
        "(trials that are stopped early or start from earlier ones take less time)",
    ]


def _round(timings: Timings, steps: int) -> float:
    return timings.round_seconds(steps) + WITHOUT_TRAINING


def _count_concurrent(resources: Resources) -> int:
    """How many trials run at a time on this machine, about."""
    fits = int((os.cpu_count() or 1) // resources.cpus_per_trial)
    if resources.gpu_share:
        fits = min(fits, int(torch.cuda.device_count() / resources.gpu_share))
    return max(1, min(fits // resources.workers_per_trial, resources.max_concurrent or fits))


def _list_missing() -> list[str]:
    """The packages that are not installed, with what needs them."""
    missing = [f"not installed: {name}, for {what}" for name, what in EXTRAS.items() if find_spec(name) is None]
    return missing or ["all extras of a search are installed"]


def format_bytes(count: float) -> str:
    """Formats bytes as MB or GB."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
