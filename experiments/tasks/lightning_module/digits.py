"""scikit-learn's digits, and a small network for them."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


def network() -> nn.Sequential:
    """[n, 1, 8, 8] -> [n, 10]; 144 + 4,608 + 18,432 + 640 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def data() -> tuple[Pair, ...]:
    """997 / 400 / 400 images of 8 x 8."""
    images, classes = (torch.tensor(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0)).split([997, 400, 400])
    return tuple((images[part].float().view(-1, 1, 8, 8) / 16, classes[part]) for part in order)
