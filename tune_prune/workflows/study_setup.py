"""Sets up what a search asks for trials, and what its workers share, once its task is prepared."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo import storage
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.config import Config
from tune_prune.hpo.gradual_pruning import GradualTrials
from tune_prune.hpo.run_lock import RunLock
from tune_prune.hpo.search_settings import SearchSettings
from tune_prune.hpo.space import Space
from tune_prune.hpo.study import STUDY_NAME, describe_study, load_or_store_initial, open_study
from tune_prune.hpo.trials import Trials
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.tracer import find_inputs
from tune_prune.pruning.global_scores import score_globally
from tune_prune.pruning.plan import WEIGHTS
from tune_prune.results.records import PointRecord
from tune_prune.workflows import initial_trials, profiling
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.latency import find_table
from tune_prune.workflows.preparation import Prepared, cached_statistics, fingerprint_search
from tune_prune.workflows.profiling import Timings


def fit_to_machine(
    config: Config, space: Space, prepared: Prepared, budget: Budget, console: SearchConsole
) -> tuple[Config, Timings]:
    """The settings with what this machine and the task decide, and how long a step and an evaluation take here."""
    info = prepared.info
    plan = space.midpoint(info.ratio_shapes).to_plan()
    resources = profiling.with_gpu_share(config.resources, prepared.task, plan, console.say)
    with console.phase("timing a step and an evaluation") if config.time_budget else nullcontext():
        timings = profiling.time_rounds(budget, resources, prepared.task, plan, config.stop_when)
    return replace(config, resources=resources, acc_tradeoff=info.acc_tradeoff), timings


def open_storage(config: Config, run_dir: Path, say: Callable[[str], None]) -> storage.Storage:
    """Opens where the study of a run is kept."""
    return storage.open_url(config.storage, say) if config.storage else storage.open_file(run_dir)


def make_trials(
    config: Config,
    space: Space,
    prepared: Prepared,
    run_dir: Path,
    budget: Budget,
    timings: Timings,
    lock: RunLock,
    console: SearchConsole,
) -> Trials:
    """Creates the study of a run, or goes on with it, and returns its trials."""
    info, opened = prepared.info, open_storage(config, run_dir, console.say)
    with lock.exclusive():
        fingerprint = fingerprint_search(space, info, prepared.contents)
        study = open_study(opened, config.study or STUDY_NAME, run_dir, fingerprint, info.limits)
        steps = profiling.count_steps(budget, timings, config.resources)
        initial = load_or_store_initial(
            study, lambda: initial_trials.plan_initial_trials(space, prepared, config, console, steps)
        )
        with storage.refuse_damage(describe_study(study)):
            levels, curves = initial_trials.read_planned(initial)
    refine = space.refine
    settings = SearchSettings(
        budget=budget,
        dense_metric=info.dense_metric,
        limits=info.limits,
        refine=refine,
        initial_points=space.initial_params(info.ratio_shapes),
        levels=levels,
        features=space.features,
        totals=info.totals,
        channels=info.channels,
        refinement_seconds=refine.rounds * timings.round_seconds(refine.total_steps // refine.rounds),
        max_failures=config.max_failures,
        samples=info.samples,
        gradual=_make_gradual(config, space, prepared, run_dir),
    )
    parameters = space.parameters_for(info.ratio_shapes, curves)
    return Trials(study, run_dir, parameters, settings, config.sampler, config.seed, lock)


def _make_gradual(config: Config, space: Space, prepared: Prepared, run_dir: Path) -> GradualTrials | None:
    """What makes the rounds of gradual pruning; None where the space has none, or no trial starts from another."""
    pruning = space.gradual_within(config.budget)
    if pruning is None:
        return None
    info, task, pruner = prepared.info, prepared.task, initial_trials.choose_pruner(space)
    granularity = str(space.midpoint(info.ratio_shapes).to_plan().granularity)
    blocks = info.channels.blocks if info.channels else ()
    params = space.parameters_for(info.ratio_shapes)
    names = [name.removeprefix("ratio/") for name in params if name.startswith("ratio/")]
    # of blocks and channels, the channels alone: a block is all or nothing, and is left to other trials
    labels = [name for name in names if name not in blocks] or names
    others = dict.fromkeys(set(names) - set(labels), 0.0)
    # in a mixture the channels first, then the weights that they leave
    stages = [[name for name in labels if name.startswith(WEIGHTS) == are_weights] for are_weights in (False, True)]

    def read_scores(point: PointRecord | None) -> dict[str, Tensor]:
        model = task.dense_model(torch.device("cpu"))
        found = find_groups(model, find_inputs(model, task.train), granularity) if info.channels else []
        kept = masks.dense_masks(model)
        if point is not None:
            path = run_dir / str(point.checkpoint)
            kept = checkpoint.restore_into(model, checkpoint.read(path), str(path))
        return score_globally(model, kept, granularity, labels, found)

    def to_params(ratios: Mapping[str, float]) -> dict[str, object]:
        return space.level_params({**others, **ratios}, pruner, info.ratio_shapes)

    return GradualTrials(pruning, [stage for stage in stages if stage], read_scores, to_params)


def make_worker_data(
    config: Config, space: Space, prepared: Prepared, run_dir: Path, lock: RunLock, say: Callable[[str], None]
) -> WorkerData:
    """Measures what the pruners of all trials need once, and puts it together with the task."""
    task, info, resources = prepared.task, prepared.info, config.resources
    cached = cached_statistics(space, task, config, say)
    with lock.exclusive():
        latency = find_table(run_dir, config, space, task, info.ratio_shapes, say)
    device, threads = resources.torch_device, resources.threads
    return WorkerData.create(task, run_dir, info.limits, device, threads, cached, config.trial_timeout, latency)
