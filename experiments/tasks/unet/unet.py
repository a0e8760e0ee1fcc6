"""Segmentation by a small U-Net: per-pixel cross-entropy, judged by the mean intersection over union.

`python dense.py` trains the dense model and writes dense.pth. The images are made (`shapes.py`).
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions of 3 x 3."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """[n, 1, 32, 32] -> [n, 3, 32, 32]; two levels, joined by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = double(1, 8), double(8, 16), double(16, 32)
        self.up2, self.join2 = nn.ConvTranspose2d(32, 16, 2, 2), double(32, 16)
        self.up1, self.join1, self.head = nn.ConvTranspose2d(16, 8, 2, 2), double(16, 8), nn.Conv2d(8, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of every pixel."""
        first = self.down1(images)
        second = self.down2(F.max_pool2d(first, 2))
        upper = self.join2(torch.cat([self.up2(self.bottom(F.max_pool2d(second, 2))), second], 1))
        return self.head(self.join1(torch.cat([self.up1(upper), first], 1)))


def iou(model: nn.Module, batches: Iterable[Pair]) -> float:
    """The intersection over union of discs and of squares, in percent, averaged over both."""
    both, either = torch.zeros(2), torch.zeros(2)
    for images, classes in batches:
        found = model(images).argmax(1)
        for kind in (1, 2):
            both[kind - 1] += ((found == kind) & (classes == kind)).sum()
            either[kind - 1] += ((found == kind) | (classes == kind)).sum()
    return float(100 * (both / either).mean())
