"""Images and labels as tensors in memory: a split, a data set of three splits, and functions that split and distort.

`affine` distorts batches of images at random, for the training of dense models.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tune_prune.common.errors import UserError


class Split(NamedTuple):
    """Inputs, uint8 or float32 [n, ...], and labels, int64 [n]."""

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """Moves the split to a device; no copy is made where it is there already."""
        return Split(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A data set. The test split is a function, so that reading it is a deliberate act; `name` is for messages."""

    train: Split
    validation: Split
    load_test: Callable[[], Split]
    name: str = ""


def check_split(data: str, part: str, split: tuple[object, object]) -> Split:
    """Returns inputs, uint8 or float32 [n, ...], and labels, int64 [n], after checking that they are finite and whole.

    `part` is what messages call this split of the data set `data`. Raises a `UserError` that names the first input or
    label that is wrong.
    """
    inputs, labels = split
    if not (isinstance(inputs, Tensor) and isinstance(labels, Tensor)) or not (
        labels.dim() == 1 and inputs.shape[:1] == labels.shape != (0,)
    ):
        what = "must be a pair of tensors, inputs [n, ...] and labels [n], n > 0"
        raise UserError(f"data {data!r}: every split {what}; the {part} split is not")
    if labels.is_floating_point() or labels.is_complex():
        # NaN is not equal to itself
        if len(wrong := (labels != labels.real.trunc()).nonzero()) or len(wrong := labels.isinf().nonzero()):
            at = int(wrong[0])
            rule = f"{labels[at].item():g}; labels are the numbers of classes, 0, 1, 2 ..."
            raise UserError(f"data {data!r}: {part} label {at} is {rule}")
        labels = labels.real
    if inputs.dtype == torch.uint8:
        return Split(inputs, labels.long())
    inputs = inputs.float()
    for first in range(0, len(inputs), 1000):
        finite = inputs[first : first + 1000].isfinite().flatten(1).all(1)
        if not finite.all():
            at = first + int(finite.int().argmin())
            raise UserError(f"data {data!r}: {part} input {at} holds NaN or infinity; every number must be finite")
    return Split(inputs, labels.long())


def as_float(inputs: Tensor) -> Tensor:
    """Converts inputs to what a model takes: bytes to float32 divided by 256, as in torch7-pruner; floats unchanged."""
    return inputs.float().div_(256) if inputs.dtype == torch.uint8 else inputs


def stack_pairs(pairs: Any) -> Split:
    """Stacks a map-style data set of pairs (input, label) into a Split; raises what its items raise."""
    inputs, labels = zip(*(pairs[i] for i in range(len(pairs))), strict=True)
    numbers = [one.item() if isinstance(one, Tensor) else one for one in labels]
    return Split(torch.stack([torch.as_tensor(one) for one in inputs]), torch.tensor(numbers))


def hold_out(split: Split, count: int | None = None) -> tuple[Split, Split]:
    """Splits into the rest and `count` images, by default a tenth; the draw is random and always the same."""
    n = len(split.labels)
    count = max(1, n // 10) if count is None else count
    if n <= count:
        raise UserError(f"{n} images are too few to hold some out")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    rest, held = order[count:].sort().values, order[:count].sort().values
    return Split(split.inputs[rest], split.labels[rest]), Split(split.inputs[held], split.labels[held])


def affine(
    images: Tensor,
    generator: torch.Generator,
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
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
