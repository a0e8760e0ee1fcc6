"""Distorts training images at random, anew for every batch. The draws follow torch's own generator."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

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


def affine(
    images: Tensor,
    generator: torch.Generator = torch.default_generator,
    degrees: float = 10.0,
    scale: float = 0.1,
    shift: float = 2.0,
) -> Tensor:
    """Rotates, scales and shifts every image at random: float [n, c, h, w] -> the same shape, zeros outside.

    `degrees`, `scale` (a share) and `shift` (pixels) bound the uniform draws; bilinear interpolation.
    """
    n, _, height, width = images.shape
    draws = torch.rand(5, n, generator=generator).mul_(2).sub_(1).to(images.device)
    angle = draws[0] * math.radians(degrees)
    sx, sy = 1 + draws[1] * scale, 1 + draws[2] * scale
    # affine_grid works in coordinates from -1 to 1, where a pixel is 2 / width wide
    dx, dy = draws[3] * shift * 2 / width, draws[4] * shift * 2 / height
    rows = [angle.cos() * sx, -angle.sin() * sy, dx, angle.sin() * sx, angle.cos() * sy, dy]
    theta = torch.stack(rows, dim=1).reshape(n, 2, 3)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def load_augment(name: str | None) -> Augment | None:
    """The function of a name, or at an address; None for "none" and where nothing is named."""
    if name is None or name == "none":
        return None
    built_in: dict[str, Augment] = {"flip": flip, "crop-flip": crop_flip, "affine": affine}
    return built_in.get(name) or in_memory.load_function(name)
