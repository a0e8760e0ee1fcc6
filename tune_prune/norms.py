"""Batch normalisation after weights are removed: its running means and variances are those of another network."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tune_prune.tasks.splits import as_float

IMAGES = 256
"""Statistics are of so many images at most: they are means over pixels too."""


def running(model: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def reestimate(model: nn.Module, inputs: Tensor, batch_size: int = 128) -> None:
    """Measure the running statistics anew: their means over batches of the first `IMAGES` inputs, [n, ...].

    All else stays as in evaluation, dropout included. Nothing happens to a model that has none, or to less than two
    inputs, which have no variance.
    """
    norms = running(model)
    if not norms or len(inputs) < 2:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    inputs = inputs[:IMAGES]
    for part in inputs.chunk(max(1, len(inputs) // batch_size)):
        model(as_float(part))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
