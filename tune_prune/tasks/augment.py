"""Distorts training images at random, anew for every batch. The draws follow torch's own generator."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from tune_prune.tasks import in_memory

Augment = Callable[[Tensor], Tensor]
"""From a batch of inputs to a batch of the same shape."""

MARGIN = 4
"""Pixels by which a crop is shifted, at most (He et al. 2016, sec. 4.2)."""


def flip(images: Tensor) -> Tensor:
    """Mirrors each image from left to right with a chance of one half, [n, c, h, w]."""
    mirrored = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def crop_flip(images: Tensor) -> Tensor:
    """Shifts each image by up to `MARGIN` pixels, zeros coming in, and flips it, [n, c, h, w]."""
    count, _, height, width = images.shape
    shifts = torch.randint(2 * MARGIN + 1, (2, count, 1), device=images.device)
    rows = (shifts[0] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (shifts[1] + torch.arange(width, device=images.device))[:, None, None, :]
    which = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    channels = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    return flip(pad(images, [MARGIN] * 4)[which, channels, rows, columns])


def load_augment(name: str | None) -> Augment | None:
    """The function of a name, or at an address; None for "none" and where nothing is named."""
    if name is None or name == "none":
        return None
    return {"flip": flip, "crop-flip": crop_flip}.get(name) or in_memory.load_function(name)
