"""Functions of a task as users write them, right and wrong; tests name them by address: `tasks_of_users:rmse`."""

import math
from collections.abc import Iterable
from itertools import cycle, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Regressor(nn.Module):
    """[n, 3] -> [n, 1]; 24 + 8 weights in net.0 and net.2."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, rows: Tensor) -> Tensor:
        return self.net(rows)


def trained_regressor() -> Regressor:
    """A regressor that has learned `rows` for a few steps."""
    torch.manual_seed(0)
    model = Regressor()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    (inputs, wanted), _, _ = rows()
    for _ in range(150):
        optimizer.zero_grad()
        F.mse_loss(model(inputs), wanted).backward()
        optimizer.step()
    return model


def rows() -> tuple[tuple[Tensor, Tensor], ...]:
    """Three splits of rows and the sine of their sum."""
    generator = torch.Generator().manual_seed(4)
    splits = [torch.randn(n, 3, generator=generator) for n in (128, 64, 64)]
    return tuple((split, split.sum(1, keepdim=True).sin()) for split in splits)


def loaders() -> tuple[DataLoader[Any], ...]:
    """The same as batches of 32."""
    return tuple(DataLoader(TensorDataset(*split), batch_size=32, shuffle=at == 0) for at, split in enumerate(rows()))


def mean_squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def smooth_absolute(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.smooth_l1_loss(model(batch[0]), batch[1], beta=0.5)


def rmse(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    squares = torch.cat([(model(inputs) - wanted).square() for inputs, wanted in batches])
    return float(squares.mean().sqrt())


def decibels(model: nn.Module, batches: Iterable[Any]) -> float:
    """The logarithm of a mean."""
    return 20 * math.log10(rmse(model, batches))


def largest(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The largest error of any sample."""
    return max(float((model(inputs) - wanted).abs().max()) for inputs, wanted in batches)


def closeness(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """`rmse` turned around: higher is better."""
    return -rmse(model, batches)


def train_silently(model: nn.Module, batches: Iterable[Any], steps: int, lr: float, after_step: Any) -> None:
    """A training loop that returns no loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for batch in islice(cycle(batches), steps):
        optimizer.zero_grad()
        mean_squared(model, batch).backward()
        optimizer.step()
        after_step()


def batch_count(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """How many batches there are."""
    return float(sum(1 for _ in batches))


def nothing(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """0 of any model."""
    return 0.0


def no_scalar(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model(batch[0]) - batch[1]


def no_gradient(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return mean_squared(model, batch).detach()


def missing_key(model: nn.Module, batch: Any) -> Tensor:
    return batch["absent"]


def text(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> str:
    return "good"


def spread(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The standard deviation of what the model returns; about 0.6 of a trained one, 0 of one without weights."""
    return float(torch.cat([model(inputs) for inputs, _ in batches]).std())


def no_number(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """No number, of any model."""
    return float("nan")


def drawn(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """A random number, with which a metric might disturb what is trained after it."""
    return float(torch.rand(()))
