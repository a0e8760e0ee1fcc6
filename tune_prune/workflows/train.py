"""Train a dense model: epochs with validation, the best of them kept, resumable after any of them."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.pruning import checkpoint
from tune_prune.tasks.metrics import Evaluation, evaluate
from tune_prune.tasks.models import build, to_device
from tune_prune.tasks.splits import Data
from tune_prune.training.loop import fit, make_optimizer, steps_per_epoch
from tune_prune.training.optim import SGD, Recipe


@dataclass(frozen=True)
class Epoch:
    """One epoch: loss in nats and error in percent, of the training batches as they went by and on validation."""

    epoch: int
    train_loss: float
    train_error: float
    val_error: float
    val_loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """The best epoch has the lowest: validation error first, of equal ones the loss."""
        return self.val_error, self.val_loss if math.isfinite(self.val_loss) else math.inf


@dataclass
class TrainingState:
    """Everything that a run of `train` goes on from."""

    model: nn.Module
    optimizer: SGD
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
    """Train model `name` from scratch, or go on with `resume`; the best epoch so far is in `out` after every epoch.

    Beside it go `<out>.csv`, a row an epoch, and, until the last epoch is done, `<out>.resume`. A `UserError` where
    there is nothing to resume, or it was begun with another recipe.
    """
    torch.manual_seed(seed)  # what the model's own initialisation draws from
    model = to_device(build(name), device)
    progress = TrainingState(model, make_optimizer(model, recipe), torch.Generator().manual_seed(seed))
    begun = {"model": name, "recipe": asdict(recipe), "seed": seed}
    state_file = out.with_suffix(".resume")
    if resume:
        _load(progress, state_file, begun)
    train_split, validation = data.train.to(device), data.validation.to(device)

    def measure(epoch: int, training: Evaluation) -> None:
        measured = evaluate(model, validation)
        last = Epoch(epoch, training.loss, training.error, measured.error, measured.loss)
        model.train()
        progress.history.append(last)
        if all(last.rank < earlier.rank for earlier in progress.history[:-1]):
            notes = begun | {"epoch": epoch, "val_error": last.val_error, "val_loss": last.val_loss}
            checkpoint.write(out, name, model, {}, notes)
        files.write_text(out.with_suffix(".csv"), _csv(progress.history))
        files.write_bytes(state_file, _dump(progress, begun))
        on_epoch(last)

    if recipe.steps < steps_per_epoch(len(train_split.labels), recipe.batch_size):
        raise ValueError(f"recipe.steps must be at least one epoch, got {recipe.steps}")
    done = len(progress.history)
    fit(
        model, train_split, recipe, progress.generator, on_epoch=measure, optimizer=progress.optimizer, epochs_done=done
    )
    state_file.unlink(missing_ok=True)
    return progress.history


def _csv(history: list[Epoch]) -> str:
    rows = [f"{e.epoch},{e.train_loss:.6f},{e.train_error:.4f},{e.val_error:.4f},{e.val_loss:.6f}" for e in history]
    return "\n".join(["epoch,train_loss,train_error,val_error,val_loss", *rows, ""])


def _dump(progress: TrainingState, begun: dict[str, object]) -> bytes:
    tensors = {f"model/{key}": value for key, value in progress.model.state_dict().items()}
    tensors |= {f"momentum/{i}": velocity for i, velocity in enumerate(progress.optimizer.velocities)}
    tensors["generator"] = progress.generator.get_state()
    header = begun | {"history": [asdict(epoch) for epoch in progress.history]}
    return save({key: value.cpu().contiguous() for key, value in tensors.items()}, {"training": json.dumps(header)})


def _load(progress: TrainingState, path: Path, begun: dict[str, object]) -> None:
    if not path.is_file():
        raise UserError(f"--resume: {path} is not there; a finished training leaves none, and none was cut off there")
    try:
        header, tensors = checkpoint.read_tensors(path, "training")
        history = [Epoch(**epoch) for epoch in header.pop("history")]
        velocities = [tensors[f"momentum/{i}"] for i in range(len(progress.optimizer.velocities))]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--resume: {path} is damaged ({error}); train again without --resume") from error
    different = [key for key, value in begun.items() if header.get(key) != value]
    if different:
        raise UserError(f"--resume: {path} was begun with another {different[0]}; give the same flags as then")
    weights = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    progress.model.load_state_dict(weights)
    for velocity, saved in zip(progress.optimizer.velocities, velocities, strict=True):
        velocity.copy_(saved)
    progress.generator.set_state(tensors["generator"])
    progress.history = history
