"""How long a model takes for one sample, once what nothing computes or reads has been removed from it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tune_prune.compaction import compact

SPAN = 0.005
"""Seconds of one reading: of as many calls as take so long."""

PAIRS = 11
"""Readings of each of two models, in turn: a machine that is busy for a while is so for both."""


def seconds(model: Callable[[Tensor], Tensor], inputs: Tensor, calls: int) -> float:
    """Seconds that a call takes, over so many."""
    began = time.perf_counter()
    for _ in range(calls):
        model(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
    return (time.perf_counter() - began) / calls


@torch.no_grad()
def compare(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], inputs: Tensor
) -> tuple[float, float, float]:
    """Seconds a call of each, medians, and the median of what the second takes as a share of the first.

    `inputs` are a batch, float [n, ...], on the models' device; modules are left in evaluation mode.
    """
    for model in (first, second):
        if isinstance(model, nn.Module):
            model.eval()
    calls = [max(1, round(SPAN / seconds(model, inputs, 2))) for model in (first, second)]
    pairs = [(seconds(first, inputs, calls[0]), seconds(second, inputs, calls[1])) for _ in range(PAIRS)]
    one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return one, other, statistics.median(b / a for a, b in pairs)


@dataclass
class Latency:
    """Measures pruned forms of a dense model, with a few samples of its data, float [n, ...]."""

    dense: nn.Module
    samples: Tensor = field(repr=False)

    def share(self, model: nn.Module) -> float:
        """The time for one sample as a share of the dense model's. A `UserError` where it cannot be traced."""
        smaller = compact(model, self.samples)
        return compare(self.dense, smaller, self.samples[:1])[2]
