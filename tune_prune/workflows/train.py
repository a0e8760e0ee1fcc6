"""Trains a dense model: validates after every epoch, keeps the best epoch, and can be resumed after any of them."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from tune_prune.common import files
from tune_prune.common.errors import UserError, prefix_errors
from tune_prune.pruning import checkpoint, masks
from tune_prune.tasks.augment import load_augment
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.fingerprints import check_unchanged, fingerprint_task
from tune_prune.tasks.metrics import ERROR, Evaluation, Metric, evaluate
from tune_prune.tasks.models import build, load_state, to_device
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import Data, Split
from tune_prune.tasks.task import check_compatible, describe_task
from tune_prune.training.loop import fit, make_optimizer
from tune_prune.training.optim import Optimizer, Recipe

TABLE_SUFFIX, STATE_SUFFIX = ".csv", ".resume"
"""What is appended to a model's file name for the table of its epochs, and for the state of a training."""

TABLE_START = "epoch,train_loss,train_"
"""How every such table begins; what follows names its metric."""


@dataclass(frozen=True)
class Epoch:
    """One epoch: loss in nats and metric, on its training batches as they came and on validation images.

    `train_metric` is NaN where only whole splits have a metric.
    """

    epoch: int
    train_loss: float
    train_metric: float
    val_metric: float
    val_loss: float

    def rank(self, metric: Metric = ERROR) -> tuple[float, float]:
        """The key that is lowest for the best epoch: the validation metric as a cost, and of equal ones the loss."""
        cost, loss = metric.cost(self.val_metric), self.val_loss
        return cost if math.isfinite(cost) else math.inf, loss if math.isfinite(loss) else math.inf


def load_training_data(name: str, say: Callable[[str], None], settings: TaskSettings, model: str) -> tuple[Data, bool]:
    """Loads data as `load_data` does; returns as well whether the training steps themselves distort its images.

    They do so for `affine` of a classification in memory, whose steps need no loop over batches then.
    """
    with prefix_errors("--data"):
        if settings.augment != "affine" or settings.fit is not None:
            return load_data(name, say, settings, model), False
        loaded = load_data(name, say, replace(settings, augment=None), model)
    if isinstance(loaded.train, Split):
        return loaded, True
    train = replace(loaded.train, augment=load_augment("affine"), objective=make_objective(settings))
    return replace(loaded, train=train), False


def make_recipe(data: Data, epochs: int, lr: float, batch_size: int, **more: Any) -> Recipe:
    """Makes the recipe of so many epochs; the learning rate rises in the first 5 % of the steps. See `Recipe`."""
    steps = epochs * data.train.steps(batch_size)
    return Recipe(steps, lr, batch_size=batch_size, warmup=0.05, **more)


@dataclass
class TrainingState:
    """Everything that a resumed training needs."""

    model: nn.Module
    optimizer: Optimizer
    generator: torch.Generator
    history: list[Epoch] = field(default_factory=list)


def train(
    name: str,
    data: Data,
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    device: torch.device,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Trains model `name` from scratch, or with `resume` from where it was cut off. Returns all epochs.

    After every epoch `out` holds the best one so far, `<out>.csv` a row for each, and `<out>.resume` the state, until
    the last epoch is done. A `UserError` where there is nothing to resume, where recipe, model, seed or data changed,
    and where one of the three files is there already and not of that kind.
    """
    _check_overwrites(out)
    torch.manual_seed(seed)  # the model's own initialisation draws from it
    with prefix_errors("--model"):
        model = to_device(build(name), device)
    masks.prunable(model)  # refuses a model that could not be pruned afterwards
    check_compatible(name, model, data, device, check_test=False)
    settings = data.train.objective.settings
    optimizer = make_optimizer(model, recipe, data.train.objective)
    state = TrainingState(model, optimizer, torch.Generator().manual_seed(seed))
    request: dict[str, object] = {"model": name, "data": data.name, "recipe": asdict(recipe), "seed": seed}
    notes = request | describe_task(data.name, settings)
    splits = {"training": data.train, "validation": data.validation}
    request |= fingerprint_task(name, model, None, splits, settings)
    state_file = files.add_suffix(out, STATE_SUFFIX)
    if resume:
        _load_state(state, state_file, request)
    train_split, validation = data.train.to(device), data.validation.to(device)
    metric = validation.objective.metric

    def measure(epoch: int, training: Evaluation) -> None:
        measured = evaluate(model, validation)
        last = Epoch(epoch, training.loss, training.metric, measured.metric, measured.loss)
        model.train()
        state.history.append(last)
        if all(last.rank(metric) < earlier.rank(metric) for earlier in state.history[:-1]):
            best = {"epoch": epoch, metric.val: last.val_metric, "val_loss": last.val_loss}
            checkpoint.write(out, name, model, {}, notes | best)
        files.write_text(files.add_suffix(out, TABLE_SUFFIX), _csv(state.history, metric))
        files.write_bytes(state_file, _dump_state(state, request))
        on_epoch(last)

    if recipe.steps < train_split.steps(recipe.batch_size):
        raise ValueError(f"recipe.steps must be at least one epoch, got {recipe.steps}")
    done = len(state.history)
    fit(model, train_split, recipe, state.generator, on_epoch=measure, optimizer=state.optimizer, epochs_done=done)
    state_file.unlink(missing_ok=True)
    return state.history


def _check_overwrites(out: Path) -> None:
    """Raises a `UserError` where a training would overwrite a file that no training wrote under that name."""
    table, state_file = files.add_suffix(out, TABLE_SUFFIX), files.add_suffix(out, STATE_SUFFIX)
    if out.exists() and not _can_read(out, "tune_prune"):
        raise UserError(f"--out {out}: exists, and is not a model that tune-prune wrote; name another file")
    if table.exists() and not (table.is_file() and table.read_bytes().startswith(TABLE_START.encode())):
        raise UserError(f"--out {out}: its table would replace {table}, which is none; name another file")
    if state_file.exists() and _can_read(state_file, "tune_prune"):
        raise UserError(f"--out {out}: its state would replace {state_file}, which is a model; name another file")


def _can_read(path: Path, key: str) -> bool:
    """Whether a safetensors file has this key in its metadata."""
    try:
        return path.is_file() and checkpoint.read_tensors(path, key)[0] is not None
    except UserError:
        return False


def _csv(history: list[Epoch], metric: Metric) -> str:
    def text(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.4f}" if metric == ERROR else repr(value)

    rows = [
        f"{e.epoch},{e.train_loss:.6f},{text(e.train_metric)},{text(e.val_metric)},{e.val_loss:.6f}" for e in history
    ]
    return "\n".join([f"{TABLE_START}{metric.name},{metric.val},val_loss", *rows, ""])


def _dump_state(state: TrainingState, request: dict[str, object]) -> bytes:
    tensors = {f"model/{key}": value for key, value in state.model.state_dict().items()}
    optimizer_tensors, rest = state.optimizer.save_state()
    tensors |= optimizer_tensors
    tensors["generator"] = state.generator.get_state()
    header = request | {"history": [asdict(epoch) for epoch in state.history], "optimizer": rest}
    # cloned, since safetensors refuses tensors that share memory, as tied weights do
    saved = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    return save(saved, {"training": json.dumps(header)})


def _load_state(state: TrainingState, path: Path, request: dict[str, object]) -> None:
    """Reads the state of a training that was cut off."""
    if not path.is_file():
        raise UserError(f"--resume: {path} is not there; a finished training leaves none, and none was cut off there")
    try:
        header, tensors = checkpoint.read_tensors(path, "training")
        history = [Epoch(**epoch) for epoch in header.pop("history")]
        optimizer = header.pop("optimizer")
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    check_unchanged(header, request, f"--resume: {path}", "give the same flags, data and code as then")
    weights = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    load_state(state.model, weights)
    try:
        state.optimizer.load_state(tensors, optimizer)
        state.generator.set_state(tensors["generator"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    state.history = history


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"--resume: {path} is damaged ({error}); train again without --resume")
