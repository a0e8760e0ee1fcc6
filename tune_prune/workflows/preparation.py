"""Prepares a search and checks it before anything is written: its space, its task, and its cached statistics."""

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from tune_prune import __version__
from tune_prune.common import files
from tune_prune.common.entrypoints import describe_address
from tune_prune.common.errors import UserError, prefix_errors
from tune_prune.distributed import authentication, loggers
from tune_prune.distributed.session import check_cluster
from tune_prune.hpo import storage
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space
from tune_prune.hpo.storage import without_password
from tune_prune.pruning import checkpoint, criteria, masks, statistics_cache
from tune_prune.pruning.coverage import measure_coverage
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.run_info import RunInfo
from tune_prune.tasks.fingerprints import check_unseen, fingerprint_task, hash_texts
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.tasks.metrics import ERROR, TRADEOFF_SHARE, Metric
from tune_prune.tasks.models import build
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.task import Task, check_trained, prepare_task
from tune_prune.training.data_parallel import check_shared_out
from tune_prune.workflows import dashboard
from tune_prune.workflows.space_checks import check_before_data, check_with_data, describe_doubts


@dataclass(frozen=True)
class LoadedTask:
    """A model and its data as they were loaded: dense model, task, and a function that returns the test split."""

    dense: nn.Module
    task: Task
    load_test: Callable[[], AnySplit]


def load_task(
    model: str,
    weights: str | None,
    data: str,
    settings: TaskSettings,
    device: torch.device,
    say: Callable[[str], None],
    *,
    force: bool,
    where: str,
) -> LoadedTask:
    """Loads a model and its data, and measures the dense model.

    Raises a `UserError` that begins with `where` and what is wrong: model, weights or data; or where the model is not
    trained, unless `force` is true.
    """
    dense = checkpoint.load_dense_model(model, weights, where)
    task, load_test = prepare_task(
        model, dense, data, device, say, settings=settings, check_test=True, where=f"{where}data"
    )
    check_trained(model, task.dense, task.validation, force)
    return LoadedTask(dense, task, load_test)


@dataclass(frozen=True)
class Begun:
    """A search that begins: settings, space, the text of its file, None for one that goes on, and its loaded task.

    The task is loaded already where its space was proposed.
    """

    config: Config
    space: Space
    text: str | None
    loaded: LoadedTask | None = None


@dataclass(frozen=True)
class Prepared:
    """A search that can begin: its task, the facts of the run, and a function that returns the test images.

    `contents` is the fingerprint of the task: of the user's code, the weights and all three splits.
    """

    task: Task
    info: RunInfo
    load_test: Callable[[], AnySplit]
    contents: Mapping[str, str]


def check_surroundings(config: Config, run_dir: Path) -> None:
    """Raises a `UserError` where Ray, the storage, a logger or the dashboard cannot be used."""
    if config.resources.address:
        check_cluster(config.resources, run_dir)
    else:
        authentication.check_environment()
    if config.storage:
        storage.check_url(config.storage)
    loggers.check_loggers(config.logger)
    if config.dashboard:
        dashboard.check_dashboard()


def describe_beginning(config: Config, space: Space, run_dir: Path) -> list[str]:
    """Describes a search that begins, line by line: what it searches, how long, and what its space leaves in doubt."""
    what = f"{space.name}: {describe_address(space.model)} on {describe_address(space.data)}"
    return [f"{what}, {format_budget(config)}, into {files.shorten(run_dir)}", *describe_doubts(space)]


def format_budget(config: Config) -> str:
    """The budget of a search in words."""
    trials = f"{config.budget} trials" if config.budget else ""
    seconds = f"{config.time_budget:g} s" if config.time_budget else ""
    return " or ".join(filter(None, [trials, seconds]))


def prepare(config: Config, space: Space, say: Callable[[str], None], loaded: LoadedTask | None = None) -> Prepared:
    """Loads model and data and measures the dense model; a `UserError` where the space or its task is wrong.

    `loaded` is what the proposal of the space has loaded already, if it was proposed.
    """
    device = torch.device(config.resources.own_device)
    with prefix_errors(f"{space.source}: task.model"):
        model = build(space.model)
    check_before_data(config, space, model)
    if loaded is None:
        named, where = (space.model, space.weights, space.data, space.settings), f"{space.source}: task."
        loaded = load_task(*named, device, say, force=config.force, where=where)
    dense, task, load_test = loaded.dense, loaded.task, loaded.load_test
    channels = check_with_data(config, space, dense, task.train)
    check_shared_out(task.train, config.resources.workers_per_trial)
    splits = {"training": task.train, "validation": task.validation, "test": load_test()}
    contents = fingerprint_task(space.model, dense, task.weights, splits, space.settings)
    if config.certify is not None:
        check_unseen(contents)
    contents |= {f"code of {name}": code for name, code in criteria.hash_pruners(space.pruners).items()}
    tradeoff = _choose_tradeoff(config, task.metric, task.dense.metric)
    if explained := explain_tradeoff(config, task.metric):
        say(f"tradeoff: {task.metric.format_tradeoff(tradeoff)}{explained}; --acc-tradeoff says another")
    info = RunInfo(
        space=space.name,
        model=space.model,
        data=space.data,
        seed=config.seed,
        budget=config.budget,
        concurrency=config.resources.max_concurrent or 0,
        device=config.resources.torch_device,
        sampler=config.sampler,
        acc_tradeoff=tradeoff,
        dense_metric=task.dense.metric,
        shapes=masks.shapes(dense),
        channels=channels,
        coverage=measure_coverage(dense),
        command=_command_line(config.storage),
        versions={"tune_prune": __version__, "python": sys.version.split()[0]}
        | {name: version(name) for name in ("ray", "optuna", "torch", "pandas")},
        time_budget=config.time_budget,
        at_most=space.at_most,
        objectives=tuple(space.objectives),
        cached_sample=space.largest_sample,
        weights=space.weights and str(Path(space.weights).absolute()),
        weights_hash=contents["weights"],
        settings=space.settings,
        metric=task.metric,
        at_least=space.at_least,
        dense_further=measure_further(dense, task.validation.to(device), "val"),
        samples=task.validation.count,
    )
    return Prepared(task, info, load_test, contents)


def _choose_tradeoff(config: Config, metric: Metric, dense: float) -> float:
    """The tradeoff of the search, or its metric's default; a `UserError` where that would allow nothing."""
    if config.acc_tradeoff is not None:
        return config.acc_tradeoff
    if found := metric.default_tradeoff(dense):
        return found
    nothing = f"the dense model's validation {metric.name} is {dense:g}, of which no share can be given up"
    raise UserError(f"--acc-tradeoff is missing: {nothing}; give it, or acc_tradeoff in [goal], in the metric's unit")


def explain_tradeoff(config: Config, metric: Metric) -> str:
    """Where a tradeoff comes from that nobody gave: " (1 % of the dense rmse)"; of the error, nothing."""
    is_explained = config.acc_tradeoff is not None or metric == ERROR
    return "" if is_explained else f" ({100 * TRADEOFF_SHARE:g} % of the dense {metric.name})"


def _command_line(storage: str | None) -> str:
    """The command that started this process, without a password."""
    name = Path(sys.argv[0]).name
    program = ["python", name] if name.endswith(".py") and name != "__main__.py" else ["tune-prune"]
    words = [word.replace(storage, without_password(storage)) if storage else word for word in sys.argv[1:]]
    return shlex.join([*program, *words])


def fingerprint_search(space: Space, info: RunInfo, contents: Mapping[str, str]) -> dict[str, str]:
    """Everything that must stay the same when a run is resumed, by what messages call it; the budget may grow.

    `contents` is the fingerprint of the task.
    """
    parameters = space.parameters_for(info.ratio_shapes).items()
    return {
        "model": space.model,
        "data": space.data,
        **{f"task {key}": str(value) for key, value in space.settings.given.items()},
        "parameters of the space": hash_texts(map(repr, sorted(parameters, key=str))),
        "tradeoff": repr(info.acc_tradeoff),
        "limits on costs": repr(dict(info.at_most)),
        **({"lower limits": repr(dict(info.at_least))} if info.at_least else {}),
        "objectives": repr(info.objectives),
        "seed": repr(info.seed),
        "sampler": info.sampler,
        "refinement": repr(space.refine),
        "initial trials": repr(space.initial),
        **({"gradual pruning": repr(space.gradual)} if space.gradual.steps else {}),
        "features": repr(space.features),
        f"{info.metric.name} of the dense model": repr(info.dense_metric),
        **contents,
    }


def cached_statistics(space: Space, task: Task, config: Config, say: Callable[[str], None]) -> CachedStatistics:
    """Reads or measures the statistics of the space's pruners that are too expensive to be measured in every round.

    They are measured once, on the dense model, for all trials.
    """
    device, names = torch.device(config.resources.own_device), sorted(criteria.required_statistics(space.pruners))
    model, train = task.dense_model(device), task.train.to(device)
    return statistics_cache.measure_dense(names, model, train, space.largest_sample, say)
