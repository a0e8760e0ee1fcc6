"""Adapts a model to its removed weights: running statistics of batch normalisation, and rates of dropout.

A batch norm's running mean and variance belong to the network before weights were removed; they are measured again.
Rates of dropout fall with the network's capacity while it is retrained (Han et al. 2015, eq. 2).
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tune_prune.pruning.weights import find_weights, stored_weights
from tune_prune.tasks.splits import AnySplit

IMAGES = 256
"""Samples that running statistics are measured on, at most; few are enough: each is a mean over pixels, too."""

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Layers whose rates `scaled_dropout` changes."""


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Lists the layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def recalibrate(model: nn.Module, sample: AnySplit, batch_size: int = 128) -> None:
    """Measures the running statistics again, as means over batches of the first `IMAGES` samples.

    All other layers, dropout included, are in evaluation mode. A model without batch norms is left as it is, and so is
    any model where there are fewer than two samples, which have no variance.
    """
    norms = batch_norms(model)
    if not norms or sample.count < 2:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    sample.run(model, IMAGES, batch_size)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@contextmanager
def scaled_dropout(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiplies the rate of each dropout by sqrt(kept / all) of the layer after it, and restores it at the end.

    That layer is the next prunable one in the model's order; a dropout after the last one keeps its rate.
    """
    by_parameter: dict[int, list[Tensor]] = defaultdict(list)
    for label, weight in find_weights(model).items():
        by_parameter[id(weight.stored.parameter)].append(masks[label])
    original: list[tuple[nn.Module, float]] = []
    pending: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, DROPOUT):
            pending.append(module)
            continue
        if isinstance(module, nn.MultiheadAttention):
            continue  # its output projection, a part of it, stands for it
        of_layer = [mask for _, stored in stored_weights(module) for mask in by_parameter[id(stored.parameter)]]
        if of_layer:
            kept = sum(int(torch.count_nonzero(mask)) for mask in of_layer)
            share = math.sqrt(kept / sum(mask.numel() for mask in of_layer))
            for dropout in pending:
                original.append((dropout, dropout.p))  # type: ignore[arg-type]
                dropout.p = dropout.p * share  # type: ignore[assignment, operator]
            pending.clear()
    try:
        yield
    finally:
        for dropout, rate in original:
            dropout.p = rate  # type: ignore[assignment]
