"""Batch normalisation after weights are removed: its running means and variances are those of another network.

Dropout that shrinks with the network while it is retrained (Han et al. 2015, eq. 2).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tune_prune.pruning.masks import prunable
from tune_prune.tasks.splits import as_float

IMAGES = 256
"""Statistics are of so many images at most: they are means over pixels too."""


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def recalibrate(model: nn.Module, inputs: Tensor, batch_size: int = 128) -> None:
    """Measure the running statistics anew: their means over batches of the first `IMAGES` inputs, [n, ...].

    All else stays as in evaluation, dropout included. Nothing happens to a model that has none, or to less than two
    inputs, which have no variance.
    """
    norms = batch_norms(model)
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


DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@contextmanager
def scaled_dropout(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply each dropout's rate by sqrt(kept / all) of the layer that it feeds, and set it back afterwards.

    That layer is the next prunable one in the model's order; a dropout after the last one is left as it is.
    """
    labels = {id(weight): label for label, weight in prunable(model).items()}
    before: list[tuple[nn.Module, float]] = []
    waiting: list[nn.Module] = []
    for module in model.modules():
        label = labels.get(id(getattr(module, "weight", None)))
        if isinstance(module, DROPOUT):
            waiting.append(module)
        elif label is not None:
            share = math.sqrt(float(torch.count_nonzero(masks[label])) / masks[label].numel())
            for dropout in waiting:
                before.append((dropout, dropout.p))  # type: ignore[arg-type]
                dropout.p = dropout.p * share  # type: ignore[assignment, operator]
            waiting.clear()
    try:
        yield
    finally:
        for dropout, rate in before:
            dropout.p = rate  # type: ignore[assignment]
