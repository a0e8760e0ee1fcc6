"""Random distortions of image batches, for training dense models."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def affine(
    images: Tensor,
    generator: torch.Generator,
    degrees: float = 10.0,
    scale: float = 0.1,
    shift: float = 2.0,
) -> Tensor:
    """Rotate, scale and shift every image at random: float [n, c, h, w] -> the same shape, zeros outside.

    `degrees`, `scale` (a share) and `shift` (pixels) bound the uniform draws; bilinear interpolation.
    """
    n, _, height, width = images.shape
    draws = torch.rand(5, n, generator=generator).mul_(2).sub_(1).to(images.device)
    angle = draws[0] * math.radians(degrees)
    sx, sy = 1 + draws[1] * scale, 1 + draws[2] * scale
    # affine_grid works in coordinates from -1 to 1, so a pixel is 2/width of them
    dx, dy = draws[3] * shift * 2 / width, draws[4] * shift * 2 / height
    rows = [angle.cos() * sx, -angle.sin() * sy, dx, angle.sin() * sx, angle.cos() * sy, dy]
    theta = torch.stack(rows, dim=1).reshape(n, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
