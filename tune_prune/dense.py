"""Train a dense model: epochs with validation, the best of them kept."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tune_prune import atomic, checkpoint
from tune_prune.data import Data
from tune_prune.models import build
from tune_prune.training import Measured, Recipe, evaluate, fit, ready


@dataclass(frozen=True)
class Epoch:
    """One epoch: mean training loss in nats, validation error in percent, validation loss in nats."""

    epoch: int
    train_loss: float
    val_error: float
    val_loss: float


def train(
    name: str,
    data: Data,
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train model `name` from scratch and write the epoch of the lowest validation error to `out`.

    Beside it goes `<out>.csv`, a row an epoch. Of equal errors the lower loss counts.
    """
    torch.manual_seed(seed)  # what the model's own initialisation draws from
    model = ready(build(name), device)
    train_split, validation = data.train.to(device), data.validation.to(device)
    history: list[Epoch] = []
    best: tuple[Measured, dict[str, torch.Tensor]] | None = None

    def measure(epoch: int, loss: float) -> None:
        nonlocal best
        measured = evaluate(model, validation)
        model.train()
        history.append(Epoch(epoch, loss, measured.error, measured.loss))
        if best is None or measured < best[0]:
            best = measured, copy.deepcopy(model.state_dict())
        on_epoch(history[-1])

    fit(model, train_split, recipe, torch.Generator().manual_seed(seed), on_epoch=measure)
    if best is None:
        raise ValueError(f"recipe.steps must be at least one epoch, got {recipe.steps}")
    model.load_state_dict(best[1])
    notes = {"recipe": asdict(recipe), "seed": seed, "val_error": best[0].error, "val_loss": best[0].loss}
    checkpoint.write(out, name, model, {}, notes)
    write_history(out.with_suffix(".csv"), history)
    return history


def write_history(path: Path, history: list[Epoch]) -> None:
    """One CSV row an epoch."""
    rows = [f"{e.epoch},{e.train_loss:.6f},{e.val_error:.4f},{e.val_loss:.6f}" for e in history]
    atomic.write_text(path, "\n".join(["epoch,train_loss,val_error,val_loss", *rows, ""]))
