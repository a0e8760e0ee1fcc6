"""Dropout that shrinks with the network while it is retrained (Han et al. 2015, eq. 2)."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tune_prune.masks import prunable

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
