"""Regression on a table: scikit-learn's diabetes data, a multilayer perceptron, judged by its root mean squared error.

`python dense.py` trains the dense model and writes dense.pth.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


def model() -> nn.Sequential:
    """[n, 10] -> [n, 1]; 640 + 4,096 + 64 weights."""
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def data() -> tuple[Pair, Pair, Pair]:
    """272 / 85 / 85 patients: ten scaled measurements, and the progression of the disease after a year."""
    features, target = (torch.tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True))
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    features, target = 20 * features[order], target[order, None]
    train, validation, test = zip(features.split([272, 85, 85]), target.split([272, 85, 85]), strict=True)
    return train, validation, test


def loss(model: nn.Module, batch: Pair) -> Tensor:
    """The mean squared error, in units that make it about 1 at first."""
    return F.mse_loss(model(batch[0]), batch[1] / 77 - 2)


def rmse(model: nn.Module, batches: Iterable[Pair]) -> float:
    """The root mean squared error, in the target's unit."""
    squares = [(77 * (model(features) + 2) - target).square() for features, target in batches]
    return float(torch.cat(squares).mean().sqrt())
