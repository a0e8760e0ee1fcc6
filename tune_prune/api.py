"""The program from Python: `tune_prune.search(model, data)` and `tune_prune.prune(model, conf)`."""

import copy
import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from tune_prune.common.entrypoints import is_handed_over
from tune_prune.common.errors import UserError
from tune_prune.hpo import run_files
from tune_prune.pruning import criteria, iterative, masks
from tune_prune.pruning.granularity import GROUPED
from tune_prune.pruning.plan import Plan
from tune_prune.results import conf
from tune_prune.results.saved_front import Front
from tune_prune.tasks import in_memory
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.metric_functions import MetricFunction
from tune_prune.tasks.models import detach_computed, to_device
from tune_prune.tasks.objective import DistillFunction, LossFunction, make_objective
from tune_prune.tasks.settings import read_settings
from tune_prune.tasks.sources import Rows
from tune_prune.tasks.splits import AnySplit, Data, Split, check_split
from tune_prune.tasks.user_splits import make_split
from tune_prune.workflows import from_python
from tune_prune.workflows.conf_notes import read_noted
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.from_python import Domain
from tune_prune.workflows.search import search as run_search

OptimizerFunction = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]
"""Makes an optimizer of parameters and a learning rate; a class of `torch.optim` is one."""


Function = str | Callable[..., Any] | None
"""An address, or the function or class itself."""


def search(
    model: str | in_memory.Model | None = None, data: str | Data | tuple[object, object, object] | None = None, *,
    space: str | Path | None = None, resume: str | Path | None = None, weights: str | Path | None = None,
    loss: str | LossFunction | None = None, metric: str | MetricFunction | type | None = None,
    better: str | None = None, further_metrics: Sequence[str | MetricFunction | type] = (),
    distill: str | DistillFunction | Domain | None = None, optimizer: str | OptimizerFunction | None = None,
    fit: Function = None, precision: str | None = None, transform: Function = None, augment: Function = None,
    budget: int | None = None, time_budget: str | float | None = None, acc_tradeoff: float | None = None,
    at_most: Mapping[str, float] | None = None, at_least: Mapping[str, float] | None = None,
    ratios: Mapping[str, Domain] | None = None, exclude: Sequence[str] | None = None,
    pruners: str | Sequence[str] | None = None, mode: str | None = None, granularity: Domain | None = None,
    multiple_of: int | None = None, min_width: int | None = None, rounds: Domain | None = None,
    steps: Domain | None = None, lr: Domain | None = None, batch_size: Domain | None = None,
    training: Mapping[str, Domain] | None = None, refine: float | None = None, seed: int | None = None,
    certify: float | None = None, force: bool = False, device: str | None = None, workers_per_trial: int | None = None,
    options: Mapping[str, object] | None = None, run_dir: str | Path | None = None, quiet: bool = False,
) -> Front:  # fmt: skip
    """Searches how far a trained model can be pruned, in a new run directory, and returns the front.

        front = tune_prune.search(model, (train, validation, test), time_budget="15m", ratios={"*": (0.5, 0.99)})

    `model` is a module with its trained weights, a function that makes one, or an address; `weights` a file of them.
    `data` is train, validation and test, each a pair of tensors (inputs [n, ...], labels [n]), a map-style data set, or
    batches as of a DataLoader; or an address. `loss` to `augment` say what else than classification the task is
    (docs/tasks.md); `distill` may also be its share of the loss, from 0 to 1.
    The search ends after `budget` trials or `time_budget`, as "15m" or in seconds; with neither, where the space says.
    `acc_tradeoff` is in the metric's unit: points of error, by default 0.5, or 1 % of the dense model's value.
    `at_most` and `at_least` limit costs and `further_metrics`, as `val_<name>`.
    `space` is a name or a .toml file; without one it is what `tune-prune init` proposes for the model. `ratios`, by
    layer or pattern, to `batch_size` change keys of it, and `training` all others of [space], as {"momentum": 0.9}. A
    number is fixed, a pair (low, high) a range, a list a choice. A share `refine` of the trials refines others.
    `certify` is the confidence of certificates, as 0.95. `device` is "auto", "cpu" or "cuda"; `workers_per_trial`
    processes train a trial; `options` are further flags of `tune-prune search`, as {"max_concurrent": 2}.
    `run_dir` is new, or by `resume` that of a search to go on with, whose objects have to be handed over again.
    Interrupted, it returns what was found. Raises `UserError` for wrong arguments, `HeldError` for a directory that is
    in use, and RuntimeError where every trial fails.
    """
    began, given = time.monotonic(), dict(locals())
    console = SearchConsole(Console(), quiet=quiet)
    with from_python.names_of_arguments(inspect.signature(search).parameters):
        arguments = from_python.sort_arguments(given)
        if resume is None:
            begun = from_python.begin(arguments, space, console.say)
            directory = run_files.new_run_dir(Path(run_dir) if run_dir else None, begun.space.name)
        else:
            directory = Path(resume).absolute()
            begun = from_python.resume(directory, arguments, {"--space": space, "--run-dir": run_dir})
        run_search(begun.config, begun.space, directory, console, begun.text, began, begun.loaded)
    return Front(directory)


def prune(
    model: nn.Module, path: str | Path, train: object = None, *, loss: str | LossFunction | None = None
) -> nn.Module:
    """Prunes a copy of a model as a .conf file says, with its granularity and its `sample`, without retraining.

        smaller = tune_prune.prune(model, "runs/Net-20260101-120000/best.conf", (inputs, labels))

    `train` is data for pruners that need more than weights: a split of any kind that `search` takes, as a pair of
    tensors [n, ...] and [n]. The copy is on the model's device; removed weights are exactly zero. `loss` is an
    address or a function, `loss(model, batch)`, by default cross-entropy; one that the conf notes has to be named here
    as well. Raises `UserError` where the conf does not fit the model, where a pruner needs data and there is none, and
    where the loss cannot be computed.
    """
    settings, where = conf.read(Path(path)), str(path)
    how = read_noted(settings, where, (*conf.UNITS, "sample"))
    if how.get("granularity") not in GROUPED:
        masks.require_layers(model, settings.ratios, where)
    pruners = dict(settings.pruners or dict.fromkeys(settings.ratios, "mag"))
    needed = criteria.required_statistics(pruners.values()) - {"weight", "noise"}
    if needed and train is None:
        raise UserError(f"{where}: its pruners need training images; give train=(inputs, labels)")
    detach_computed(model)
    device = next(model.parameters()).device
    split: AnySplit = Split(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    if train is not None:
        split = _make_split(train, loss, _noted_loss(settings, where)).to(device)
        if isinstance(split, BatchSplit):
            split.head(2).check_loss(model, with_gradient=True)
    state = iterative.initial_state(to_device(copy.deepcopy(model), device))
    if how.get("granularity") in GROUPED and train is None:
        raise UserError(f"{where}: channels are found by running the model; give train=(inputs, labels)")
    try:
        plan = Plan(dict(settings.ratios), pruners, rounds=1, **how)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    iterative.prune_once(state, plan, 1, split, iterative.round_generator(0, 1))
    return state.model


def _noted_loss(settings: conf.Conf, source: str) -> str | None:
    """What to say where the loss that a conf notes is not named by the user: the conf may be a stranger's."""
    task = settings.notes.get("task")
    noted = task.get("loss") if isinstance(task, Mapping) else None
    if noted is None:
        return None
    if is_handed_over(noted):
        return f"{source}: its loss came from Python as an object; give it again as loss=..."
    return f"{source}: its loss is code, {noted!r}; if you trust it, give loss={noted!r}"


def _make_split(train: object, loss: str | LossFunction | None, advice: str | None) -> AnySplit:
    """Makes the training split of what a user gave; `advice` is raised where a loss is missing."""
    if loss is None and advice is not None:
        raise UserError(advice)
    given = from_python.keep_objects({} if loss is None else {"loss": loss})
    objective = make_objective(read_settings(given, "tune_prune.prune: "))
    split = make_split("train", "training", train, objective, lambda line: None)
    if not isinstance(split, Split):
        return replace(split, objective=objective) if given else split
    if given:
        return BatchSplit(Rows((split.inputs, split.labels)), objective, "train, training", scale=split.scale)
    return check_split("train", "training", split)
