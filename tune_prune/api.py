"""The search from Python: `tune_prune.search(model, data)`, its `Front`, and `tune_prune.prune(model, conf)`."""

import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch import nn

from tune_prune.common.errors import UserError, format_names
from tune_prune.hpo import config, space_reader
from tune_prune.pruning import checkpoint, criteria, iterative, masks
from tune_prune.pruning.granularity import granularities
from tune_prune.pruning.plan import Plan
from tune_prune.results import conf
from tune_prune.tasks import in_memory
from tune_prune.tasks.models import to_device
from tune_prune.tasks.splits import Data, Split
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.search import search as run_search

Ratios = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Pruned:
    """A member of a front: compression in [0, 1], factor, errors in percent, and its files."""

    compression: float
    factor: float
    val_error: float
    test_error: float | None
    conf: Path
    checkpoint: Path

    def model(self) -> nn.Module:
        """The pruned model."""
        return checkpoint.restore(checkpoint.read(self.checkpoint), str(self.checkpoint))[0]


@dataclass(frozen=True)
class Front:
    """What a search found, in its run directory; iterates over its members, ascending in compression."""

    run_dir: Path

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        found: dict[str, Any] = json.loads((self.run_dir / "summary.json").read_text(encoding="utf-8"))
        return found

    def __iter__(self) -> Iterator[Pruned]:
        keys = ("compression", "factor", "val_error", "test_error")
        for entry in self.summary["front"]:
            files = {key: self.run_dir / entry[key] for key in ("conf", "checkpoint")}
            yield Pruned(**{key: entry[key] for key in keys}, **files)

    def __len__(self) -> int:
        return len(self.summary["front"])

    @property
    def best(self) -> Pruned | None:
        """The most compressed that keeps the tradeoff; None where nothing does."""
        return max(self, key=lambda member: member.compression, default=None)

    def to_pandas(self) -> pd.DataFrame:
        """pareto.csv."""
        return pd.read_csv(self.run_dir / "pareto.csv")


def search(
    model: str | in_memory.Model,
    data: str | Data | tuple[object, object, object],
    *,
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
    run_dir: Path | None = None,
    quiet: bool = False,
) -> Front:
    """Search how far a trained model can be pruned, in a new run directory.

    `model` is a module with its trained weights, a function that makes one, or an address; `data` is train, validation
    and test, each a pair of tensors (inputs, labels) or a data set of such pairs, or an address. `ratios` are (low,
    high) by pattern of layers, first match first, from 0.3 to 0.98 everywhere unless given; in `mode` "global" they are
    of all layers together. `granularity` says what goes as one. A trial prunes in three rounds and retrains for `steps`
    steps after each, after the last for twice as many, at a rate within `lr`; the share `finish` of the trials prunes
    the best anew, ten times as slowly. Raises `UserError` where something is wrong.
    """
    began = time.monotonic()
    name = model if isinstance(model, str) else in_memory.keep_model(model)
    source = data if isinstance(data, str) else in_memory.keep_data(data)
    text = _space(name, source, ratios or {"*": (0.3, 0.98)}, exclude, pruners, (mode, granularity), steps, lr, refine)
    space = space_reader.parse(text, "search", "tune_prune.search")
    settings = config.Config(budget, acc_tradeoff, seed=seed)
    directory = config.new_run_dir(run_dir, space.name)
    run_search(settings, space, directory, SearchConsole(Console(), quiet=quiet), text, began)
    return Front(directory)


def _space(
    model: str,
    data: str,
    ratios: Ratios,
    exclude: Sequence[str],
    pruners: Sequence[str],
    how: tuple[str, str],
    steps: int,
    lr: tuple[float, float],
    refine: float,
) -> str:
    """The text of a space, as one would write it by hand."""
    lines = ["[task]", f"model = {json.dumps(model)}", f"data = {json.dumps(data)}", "", "[space]"]
    lines += [f"pruner = {json.dumps(list(pruners))}", f"exclude = {json.dumps(list(exclude))}", "rounds = 3"]
    lines += [f"mode = {json.dumps(how[0])}", f"granularity = {json.dumps(how[1])}"]
    lines += [f"steps = {steps}", f"final_steps = {2 * steps}", f"lr = {{low = {lr[0]}, high = {lr[1]}, log = true}}"]
    lines += ["distill = 0.5", "temperature = 2", "", "[space.ratio]"]
    lines += [f"{json.dumps(key)} = {{low = {low}, high = {high}}}" for key, (low, high) in ratios.items()]
    lines += ["", "[refine]", f"share = {refine}", "rounds = 8", f"steps = {40 * steps}", f"lr = {lr[1]}", ""]
    return "\n".join(lines)


def prune(model: nn.Module, path: str | Path, train: tuple[torch.Tensor, torch.Tensor] | None = None) -> nn.Module:
    """A copy of a model, pruned as a .conf file says and not retrained.

    `train` are inputs and labels, for pruners that ask for more than weights. Raises `UserError` where the conf does
    not fit the model, or a pruner needs images and there are none.
    """
    wanted = conf.read(Path(path))
    masks.require_layers(model, wanted.ratios, str(path))
    pruners = dict(wanted.pruners or dict.fromkeys(wanted.ratios, "mag"))
    needed = criteria.required_statistics(pruners.values()) - {"weight", "noise"}
    if needed and train is None:
        raise UserError(f"{path}: its pruners need training images; give train=(inputs, labels)")
    inputs, labels = train or (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    state = iterative.initial_state(to_device(copy.deepcopy(model), next(model.parameters()).device))
    as_one = str(wanted.notes.get("granularity", Plan.granularity))
    if as_one not in granularities:
        raise UserError(f"{path}: unknown granularity {as_one!r}; known: {format_names(granularities)}")
    plan = Plan(dict(wanted.ratios), pruners, rounds=1, granularity=as_one)
    iterative.prune_once(state, plan, 1, Split(inputs, labels), iterative.round_generator(0, 1))
    return state.model
