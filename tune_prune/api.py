"""The program from Python: `tune_prune.search(model, data)`, its `Front`, and `tune_prune.prune(model, conf)`."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch import nn

from tune_prune.common.errors import UserError
from tune_prune.hpo import run_files, space_reader, space_writer
from tune_prune.hpo.config import Config
from tune_prune.hpo.space_writer import Ratios
from tune_prune.pruning import checkpoint, criteria, iterative, masks
from tune_prune.pruning.granularity import GROUPED
from tune_prune.pruning.plan import Plan
from tune_prune.results import conf
from tune_prune.results.run_results import read_run, summary_front
from tune_prune.tasks import in_memory
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.metric_functions import MetricFunction
from tune_prune.tasks.models import detach_computed, to_device
from tune_prune.tasks.objective import DistillFunction, LossFunction, make_objective
from tune_prune.tasks.settings import DISTILL_SHARE, read_settings
from tune_prune.tasks.sources import Rows
from tune_prune.tasks.splits import AnySplit, Data, Split, check_split
from tune_prune.tasks.user_splits import make_split
from tune_prune.training.resources import Resources
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.replay import check_values
from tune_prune.workflows.search import search as run_search

RATIOS: Ratios = {"*": (0.3, 0.98)}
OptimizerFunction = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]
"""Makes an optimizer of parameters and a learning rate; a class of `torch.optim` is one."""


@dataclass(frozen=True)
class Pruned:
    """A member of a front: compression in [0, 1], factor, what it was judged by, and paths of its files.

    `val_metric` and `test_metric` are the metric of the search on validation and on test data: by default the error in
    percent. `test_metric` is None where the search was interrupted before it was measured.
    """

    compression: float
    factor: float
    val_metric: float
    test_metric: float | None
    conf: Path
    checkpoint: Path

    def model(self) -> nn.Module:
        """Loads the pruned model."""
        return checkpoint.restore(checkpoint.read(self.checkpoint), str(self.checkpoint))[0]


@dataclass(frozen=True)
class Front:
    """The front that a search found, read from its run directory; its members ascend in compression."""

    run_dir: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return read_run(self.run_dir).summary

    def __iter__(self) -> Iterator[Pruned]:
        run = read_run(self.run_dir)
        for row in summary_front(run.summary):
            conf, checkpoint = self.run_dir / row["conf"], self.run_dir / row["checkpoint"]
            measured = row["compression"], row["factor"], row[run.metric.val], row.get(run.metric.test)
            yield Pruned(*measured, conf, checkpoint)

    def __len__(self) -> int:
        return len(summary_front(self.summary))

    @property
    def best(self) -> Pruned | None:
        """The most compressed member; None where no point keeps the tradeoff."""
        return max(self, key=lambda member: member.compression, default=None)

    @property
    def certified(self) -> Pruned | None:
        """The most compressed member that is certified; None where none is, or where `certify` was not asked for."""
        summary = self.summary
        rows = zip(self, summary_front(summary), strict=True)
        return next((member for member, row in rows if row["id"] == summary.get("certified")), None)

    def to_pandas(self) -> pd.DataFrame:
        """The content of pareto.csv: a row a member."""
        return read_run(self.run_dir).members


def search(
    model: str | in_memory.Model,
    data: str | Data | tuple[object, object, object],
    *,
    loss: str | LossFunction | None = None,
    metric: str | MetricFunction | type | None = None,
    better: str | None = None,
    distill: str | DistillFunction | float = DISTILL_SHARE,
    optimizer: str | OptimizerFunction | None = None,
    fit: str | Callable[..., Any] | None = None,
    precision: str | None = None,
    transform: str | Callable[[Any], Any] | None = None,
    augment: str | Callable[[Any], Any] | None = None,
    workers_per_trial: int = 1,
    further_metrics: Sequence[str | MetricFunction | type] = (),
    at_most: Mapping[str, float] | None = None,
    at_least: Mapping[str, float] | None = None,
    weights: str | Path | None = None,
    budget: int = 100,
    acc_tradeoff: float | None = None,
    ratios: Ratios | None = None,
    exclude: Sequence[str] = (),
    pruners: Sequence[str] = ("mag",),
    mode: str = "layer",
    granularity: str = "weight",
    multiple_of: int = 1,
    steps: int = 200,
    lr: tuple[float, float] = (0.01, 0.1),
    batch_size: int = Plan.batch_size,
    refine: float = 0.2,
    seed: int = 0,
    certify: float | None = None,
    force: bool = False,
    run_dir: Path | None = None,
    quiet: bool = False,
) -> Front:
    """Searches how far a trained model can be pruned, in a new run directory.

    `model` is a module with its trained weights, a function that makes one, or an address; `weights` a file of them.
    `data` is train, validation and test, each a pair of tensors (inputs, labels), a map-style data set, or batches as
    of a DataLoader; or an address. The arguments from `loss` to `augment` say what else than classification the task
    is, each by a name, an address or an object (docs/tasks.md); `distill` may also be its share of the loss.
    `workers_per_trial` processes train a trial. `at_most` and `at_least` limit `further_metrics`, as `val_<name>`, and
    costs. `budget` is in trials, `acc_tradeoff` in the metric's unit: points of error, by default 0.5, or 1 % of the
    dense model's value. `ratios` are (low, high) by pattern of layers, of which the first match counts, by default 0.3
    to 0.98. A trial has three rounds of `steps` steps, twice as many after the last; a share `refine` of trials refines
    the best. `certify` is the confidence of certificates, as 0.95. Raises `UserError` for wrong arguments.
    """
    share, function = (DISTILL_SHARE, distill) if isinstance(distill, str) or callable(distill) else (distill, None)
    task = _list_settings(
        model=model if isinstance(model, str) else in_memory.keep_model(model), weights=weights and str(weights),
        data=data if isinstance(data, str) else in_memory.keep_data(data), workers_per_trial=workers_per_trial,
        loss=loss, metric=metric, better=better, distill=function, optimizer=optimizer, fit=fit,
        precision=precision, transform=transform, augment=augment, further_metrics=further_metrics,
    )  # fmt: skip
    how = {"mode": mode, "granularity": granularity, "multiple_of": multiple_of}
    how |= {"batch_size": batch_size, "distill": share}
    text = space_writer.write(task, ratios or RATIOS, exclude, pruners, how, steps, lr, refine, at_most, at_least)
    config = Config(budget=budget, acc_tradeoff=acc_tradeoff, seed=seed, certify=certify, force=force)
    return _run(text, config, run_dir, quiet)


def _run(text: str, config: Config, run_dir: Path | None, quiet: bool) -> Front:
    """Searches the space that a text describes."""
    began, space = time.monotonic(), space_reader.parse(text, "search", "tune_prune.search")
    config = replace(config, resources=Resources(workers_per_trial=space.workers_per_trial))
    directory = run_files.new_run_dir(run_dir, space.name)
    run_search(config, space, directory, SearchConsole(Console(), quiet=quiet), text, began)
    return Front(directory)


def _list_settings(**given: object) -> dict[str, object]:
    """The settings of a task that are given, as a file holds them: objects are kept and named by their addresses."""
    found: dict[str, object] = {}
    for key, value in given.items():
        if callable(value):
            found[key] = in_memory.keep_function(value)
        elif isinstance(value, str | int):
            found[key] = value
        elif isinstance(value, list | tuple):
            found |= {key: [_list_settings(**{key: one})[key] for one in value]} if value else {}
        elif value is not None:
            raise UserError(f"{key} must be a name, an address or a function, got {type(value).__name__}")
    return found


def prune(
    model: nn.Module, path: str | Path, train: object = None, *, loss: str | LossFunction | None = None
) -> nn.Module:
    """Prunes a copy of a model as a .conf file says, with its granularity and its `sample`, without retraining.

    `train` is data for pruners that need more than weights: a split of any kind that `search` takes. `loss` is an
    address or a function, `loss(model, batch)`, by default cross-entropy; one that the conf notes has to be named here
    as well. Raises `UserError` where the conf does not fit the model, where a pruner needs data and there is none, and
    where the loss cannot be computed.
    """
    settings, where = conf.read(Path(path)), str(path)
    if settings.notes.get("granularity") not in GROUPED:
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
    kept = ("granularity", "multiple_of", "sample")
    how: dict[str, Any] = {key: settings.notes[key] for key in kept if key in settings.notes}
    check_values(how, where)
    if how.get("granularity") in GROUPED and train is None:
        raise UserError(f"{where}: channels are found by running the model; give train=(inputs, labels)")
    plan = Plan(dict(settings.ratios), pruners, rounds=1, **how)
    iterative.prune_once(state, plan, 1, split, iterative.round_generator(0, 1))
    return state.model


def _noted_loss(settings: conf.Conf, source: str) -> str | None:
    """What to say where the loss that a conf notes is not named by the user: the conf may be a stranger's."""
    task = settings.notes.get("task")
    noted = task.get("loss") if isinstance(task, Mapping) else None
    if noted is None:
        return None
    if str(noted).startswith(in_memory.__name__):
        return f"{source}: its loss came from Python as an object; give it again as loss=..."
    return f"{source}: its loss is code, {noted!r}; if you trust it, give loss={noted!r}"


def _make_split(train: object, loss: str | LossFunction | None, advice: str | None) -> AnySplit:
    """Makes the training split of what a user gave; `advice` is raised where a loss is missing."""
    if loss is None and advice is not None:
        raise UserError(advice)
    given = _list_settings(loss=loss)
    objective = make_objective(read_settings(given, "tune_prune.prune: "))
    split = make_split("train", "training", train, objective, lambda line: None)
    if not isinstance(split, Split):
        return replace(split, objective=objective) if given else split
    if given:
        return BatchSplit(Rows((split.inputs, split.labels)), objective, "train, training", scale=split.scale)
    return check_split("train", "training", split)
