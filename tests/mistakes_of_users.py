"""What users get wrong in a task of their own; tests name it by address: `mistakes_of_users:fails`."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from tasks_of_users import Regressor, mean_squared, rmse, rows
from torch import Tensor, nn
from torch.utils.data import Dataset

Pair = tuple[Tensor, Tensor]


def number(model: nn.Module, batch: Pair) -> float:
    return mean_squared(model, batch).item()


def infinite(model: nn.Module, batch: Pair) -> Tensor:
    return mean_squared(model, batch) / 0


def one_argument(model: nn.Module) -> Tensor:
    raise AssertionError


def of_a_part(model: Regressor, batch: Pair) -> Tensor:
    """Does not call the model itself."""
    return F.mse_loss(model.net(batch[0]), batch[1])


def top1_accuracy(model: nn.Module, batches: Iterable[Pair]) -> float:
    return 1.0


def metric_of_no_number(model: nn.Module, batches: Iterable[Pair]) -> float:
    return rmse(model, batches) * float("nan")


def metric_of_a_tensor(model: nn.Module, batches: Iterable[Pair]) -> Tensor:
    return torch.cat([model(inputs) for inputs, _ in batches])


def metric_that_fails(model: nn.Module, batches: Iterable[Pair]) -> float:
    return len(list(batches)) / 0


def distill_no_scalar(model: nn.Module, teacher: nn.Module, batch: Pair) -> Tensor:
    return model(batch[0]) - teacher(batch[0])


def distill_that_fails(model: nn.Module, teacher: nn.Module, batch: Pair) -> Tensor:
    return teacher.absent(batch)


def no_optimizer(parameters: Any, lr: float) -> list[Any]:
    return list(parameters)


def optimizer_that_fails(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr, momentum="high")


def fit_that_fails(model: nn.Module, batches: Any, steps: int, lr: float, after_step: Any) -> None:
    raise KeyError("steps")


def augment_that_fails(inputs: Tensor) -> Tensor:
    return inputs @ inputs


def read_once() -> Any:
    return iter([rows()[0]]), rows()[1], rows()[2]


class Exhausted:
    """Yields its batches at the first reading alone."""

    def __init__(self) -> None:
        self.batches = [rows()[0]]

    def __iter__(self) -> Iterator[Pair]:
        while self.batches:
            yield self.batches.pop()


def exhausted() -> Any:
    return Exhausted(), rows()[1], rows()[2]


class Failing(Dataset[Pair]):
    """Cannot read its samples."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Pair:
        raise OSError("no such file")


def failing() -> Any:
    return Failing(), Failing(), Failing()


def factory_that_fails() -> Any:
    return {}["train"]


def other_keys() -> Any:
    """A key that the model does not take."""
    splits = [{"rows": inputs, "extra": inputs, "labels": (wanted[:, 0] > 0).long()} for inputs, wanted in rows()]
    return tuple(splits)


class Opaque(nn.Module):
    """Returns no tensor, but an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> "Opaque":
        self.found = self.net(inputs)
        return self


def opaque_loss(model: nn.Module, batch: Pair) -> Tensor:
    return F.mse_loss(model(batch[0]).found, batch[1])


def opaque_metric(model: nn.Module, batches: Iterable[Pair]) -> float:
    return float(sum(opaque_loss(model, batch) for batch in batches))
