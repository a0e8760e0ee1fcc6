"""The program from Python: `tune_prune.search(model, data)`, its `Front`, and `tune_prune.prune(model, conf)`."""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch import nn

from tune_prune.common.errors import UserError
from tune_prune.hpo import run_files, space_reader
from tune_prune.hpo.config import Config
from tune_prune.pruning import checkpoint, criteria, iterative, masks
from tune_prune.pruning.plan import Plan
from tune_prune.results import conf
from tune_prune.results.run_results import read_run, summary_front
from tune_prune.tasks import in_memory
from tune_prune.tasks.models import detach_computed, to_device
from tune_prune.tasks.splits import Data, Split, check_split
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.replay import check_values
from tune_prune.workflows.search import search as run_search

Ratios = Mapping[str, tuple[float, float]]


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

    def to_pandas(self) -> pd.DataFrame:
        """The content of pareto.csv: a row a member."""
        return read_run(self.run_dir).members


def search(
    model: str | in_memory.Model,
    data: str | Data | tuple[object, object, object],
    *,
    loss: str | Callable[..., Any] | None = None,
    metric: str | Callable[..., Any] | None = None,
    better: str | None = None,
    distill: str | Callable[..., Any] | None = None,
    optimizer: str | Callable[..., Any] | None = None,
    fit: str | Callable[..., Any] | None = None,
    precision: str | None = None,
    augment: str | Callable[..., Any] | None = None,
    batch_size: int = 128,
    budget: int = 100,
    acc_tradeoff: float = 0.5,
    ratios: Ratios | None = None,
    exclude: Sequence[str] = (),
    pruners: Sequence[str] = ("mag",),
    mode: str = "layer",
    granularity: str = "weight",
    steps: int = 200,
    lr: tuple[float, float] = (0.01, 0.1),
    refine: float = 0.2,
    seed: int = 0,
    force: bool = False,
    run_dir: Path | None = None,
    quiet: bool = False,
) -> Front:
    """Searches how far a trained model can be pruned, in a new run directory.

    `model` is a module with its trained weights, a function that makes one, or an address. `data` is train, validation
    and test, or an address; each is a pair of tensors or arrays (inputs, labels), a mapping of them, a data set, or an
    iterable of batches such as a DataLoader. `loss(model, batch)`, `metric(model, batches)`, `distill(model, teacher,
    batch)`, `optimizer(parameters, lr)`, `fit(model, batches, steps, lr, after_step)` and `augment(inputs)` are
    functions, or their addresses, in place of cross-entropy, misclassified percent and SGD (docs/tasks.md). `budget` is
    in trials, `acc_tradeoff` in the metric's unit, of which "lower" or "higher" values are `better`. `ratios` are (low,
    high) by pattern of layers, of which the first match counts, and 0.3 to 0.98 everywhere by default; in `mode`
    "global" they are of all layers together. `granularity` says which weights are removed together: "weight", "filter",
    "neuron" or "2:4". A trial prunes in three rounds and retrains for `steps` steps after each, for twice as many after
    the last, at a learning rate within `lr`. The share `refine` of the trials prunes the most promising ratios anew in
    small steps and retrains for longer. A model near chance is refused unless `force` is true. Raises `UserError` where
    an argument is wrong.
    """
    began = time.monotonic()
    functions = {
        "loss": loss, "metric": metric, "distill": distill, "optimizer": optimizer, "fit": fit, "augment": augment
    }  # fmt: skip
    task = _name_task(model, data, functions) | _leave_out_none({"better": better, "precision": precision})
    how: dict[str, str | int] = {"mode": mode, "granularity": granularity, "batch_size": batch_size}
    text = _space(task, ratios or {"*": (0.3, 0.98)}, exclude, pruners, how, steps, lr, refine)
    space = space_reader.parse(text, "search", "tune_prune.search")
    settings = Config(budget=budget, acc_tradeoff=acc_tradeoff, seed=seed, force=force)
    directory = run_files.new_run_dir(run_dir, space.name)
    run_search(settings, space, directory, SearchConsole(Console(), quiet=quiet), text, began)
    return Front(directory)


def _name_task(
    model: str | in_memory.Model,
    data: str | Data | tuple[object, object, object],
    functions: Mapping[str, str | Callable[..., Any] | None],
) -> dict[str, str]:
    """The keys of [task] that name model, data and functions; objects are kept under addresses."""
    names = {
        "model": model if isinstance(model, str) else in_memory.keep_model(model),
        "data": data if isinstance(data, str) else in_memory.keep_data(data),
    }
    return names | _leave_out_none({key: _name_function(given) for key, given in functions.items()})


def _leave_out_none(values: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in values.items() if value is not None}


def _name_function(given: str | Callable[..., Any] | None) -> str | None:
    """The name or address of a function; one that comes as an object is kept."""
    return given if given is None or isinstance(given, str) else in_memory.keep_function(given)


def _space(
    task: Mapping[str, str],
    ratios: Ratios,
    exclude: Sequence[str],
    pruners: Sequence[str],
    how: Mapping[str, str | int],
    steps: int,
    lr: tuple[float, float],
    refine: float,
) -> str:
    """The text of a space file with these settings; `task` and `how` are keys of [task] and [space]."""
    lines = ["[task]", *(f"{key} = {json.dumps(value)}" for key, value in task.items()), "", "[space]"]
    lines += [f"pruner = {json.dumps(list(pruners))}", f"exclude = {json.dumps(list(exclude))}", "rounds = 3"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in how.items()]
    lines += [f"steps = {steps}", f"final_steps = {2 * steps}", f"lr = {{low = {lr[0]}, high = {lr[1]}, log = true}}"]
    lines += ["distill = 0.5", "temperature = 2", "", "[space.ratio]"]
    lines += [f"{json.dumps(key)} = {{low = {low}, high = {high}}}" for key, (low, high) in ratios.items()]
    lines += ["", "[refine]", f"share = {refine}", "rounds = 8", f"steps = {40 * steps}", f"lr = {lr[1]}", ""]
    return "\n".join(lines)


def prune(model: nn.Module, path: str | Path, train: tuple[torch.Tensor, torch.Tensor] | None = None) -> nn.Module:
    """Prunes a copy of a model as a .conf file says, with its granularity and its `sample`, without retraining.

    `train` are inputs and labels, for pruners that need more than weights. Raises `UserError` where the conf does not
    fit the model, and where a pruner needs images and there are none.
    """
    settings = conf.read(Path(path))
    masks.require_layers(model, settings.ratios, str(path))
    pruners = dict(settings.pruners or dict.fromkeys(settings.ratios, "mag"))
    needed = criteria.required_statistics(pruners.values()) - {"weight", "noise"}
    if needed and train is None:
        raise UserError(f"{path}: its pruners need training images; give train=(inputs, labels)")
    detach_computed(model)
    split = Split(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    if train is not None:
        split = check_split("train", "training", train)
    state = iterative.initial_state(to_device(copy.deepcopy(model), next(model.parameters()).device))
    how: dict[str, Any] = {key: settings.notes[key] for key in ("granularity", "sample") if key in settings.notes}
    check_values(how, str(path))
    plan = Plan(dict(settings.ratios), pruners, rounds=1, **how)
    iterative.prune_once(state, plan, 1, split, iterative.round_generator(0, 1))
    return state.model
