"""What every trial of a search shares: a dense model, the images to train and validate on, the teacher's answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tune_prune import checkpoint
from tune_prune.common.errors import UserError
from tune_prune.data import load_data
from tune_prune.models import build, pretrained
from tune_prune.splits import Data, Split
from tune_prune.training import Measured, evaluate, logits, ready


@dataclass(frozen=True)
class Task:
    """Made once a run and never changed. `teacher` is the dense model's logits on `train`, float32 [n, classes]."""

    model: str
    weights: dict[str, Tensor]
    train: Split
    validation: Split
    teacher: Tensor
    dense: Measured

    def dense_model(self, device: torch.device) -> nn.Module:
        """A fresh copy of the dense model on a device."""
        model = build(self.model)
        model.load_state_dict(self.weights)
        return ready(model, device)

    def to(self, device: torch.device) -> "Task":
        """The same task with its images and logits on a device."""
        moved = self.train.to(device), self.validation.to(device), self.teacher.to(device)
        return Task(self.model, self.weights, *moved, self.dense)


def load_dense(name: str, weights: str | None, source: str) -> nn.Module:
    """A model with its dense weights: from a checkpoint file, else from the package, else as its factory made it.

    `source` is what a `UserError` names when a built-in model has no weights.
    """
    torch.manual_seed(0)  # weights that a factory draws are drawn again where a run is resumed
    model = build(name)
    path = Path(weights) if weights else pretrained(name)
    if path is not None:
        checkpoint.load_weights(model, checkpoint.read(path), str(path))
    elif ":" not in name:
        raise UserError(f"{source}: model {name!r} has no pretrained weights; give task.weights, a checkpoint")
    return model


def prepare(
    name: str,
    data: str,
    weights: str | None,
    device: torch.device,
    source: str,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Task, Callable[[], Split]]:
    """The task of a search, and the function that reads the test split, to be called once at the end.

    A `UserError` where the model does not tell the data's classes apart; `say` is told which splits are made here.
    """
    model = ready(load_dense(name, weights, source), device)
    loaded = load_data(data, say)
    fit_together(name, model, data, loaded, device)
    train, validation = loaded.train.to(device), loaded.validation.to(device)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    task = Task(name, state, train, validation, logits(model, train.inputs).clone(), evaluate(model, validation))
    return task.to(torch.device("cpu")), loaded.load_test


def fit_together(name: str, model: nn.Module, data: str, loaded: Data, device: torch.device) -> None:
    """A `UserError` where the model cannot take the data's inputs, or returns no score for each of its labels.

    Also where a split has images of one class alone: any constant answer has no error there.
    """
    inputs = loaded.train.inputs[:2].to(device)
    try:
        scores = logits(model, inputs)
    except Exception as error:  # a user's model may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"model {name!r} fails on inputs of {data!r}, {list(inputs.shape)} ({reason})") from error
    if scores.dim() != 2 or len(scores) != len(inputs):
        shape = list(scores.shape)
        raise UserError(
            f"model {name!r} must return class scores [n, classes]; of {len(inputs)} inputs it made {shape}"
        )
    for which, split in (("training", loaded.train), ("validation", loaded.validation)):
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= scores.shape[1]:
            raise UserError(
                f"data {data!r} has labels from {low} to {high}; model {name!r} has {scores.shape[1]} outputs"
            )
        if low == high:
            raise UserError(f"data {data!r}: all {which} labels are {low}; give images of several classes")
