"""How many multiply-adds a sample takes, of the dense model and of what masks leave.

A weight of a convolution is used once at every output position, one of a linear layer once for every token. What a
layer takes is therefore its kept weights times its uses; nothing is saved for inputs that are zero because of others.

How long a model takes for one sample, once what nothing computes or reads has been removed from it.
"""

import copy
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.export.compaction import compact
from tune_prune.pruning import masks


def count_uses(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """How often each weight of a layer is used for one sample, by label; `inputs` are a few samples [n, ...].

    A weight that several layers share is used by each of them; a layer that the samples do not reach is used 0 times.
    """
    model = copy.deepcopy(model).eval()
    found: Counter[int] = Counter()

    def count(weight: Tensor, times: float) -> None:
        found[id(weight)] += times / len(inputs)  # type: ignore[assignment]

    hooks = [module.register_forward_hook(_hook(count), with_kwargs=True) for module in model.modules()]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return {label: float(found[id(weight)]) for label, weight in masks.prunable(model).items()}


def _hook(count: Callable[[Tensor, float], None]) -> Callable[..., None]:
    """Counts how often a module's weights were used in one call."""

    def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(module, nn.Linear):
            count(module.weight, output.numel() / module.out_features)
        elif isinstance(module, masks.TRANSPOSED):
            count(module.weight, args[0].numel() / module.in_channels)
        elif isinstance(module, masks.PRUNABLE):
            count(module.weight, output.numel() / module.out_channels)
        elif isinstance(module, nn.MultiheadAttention):
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            _attention(
                module, {name: given[name].numel() / given[name].shape[-1] for name in ("query", "key", "value")}, count
            )

    return called


def _attention(
    module: nn.MultiheadAttention, tokens: Mapping[str, float], count: Callable[[Tensor, float], None]
) -> None:
    """An attention's projections; its own products of queries, keys and values have no weights."""
    if module.in_proj_weight is not None:  # a third each of queries, keys and values
        count(module.in_proj_weight, sum(tokens.values()) / 3)
    else:
        for name, times in tokens.items():
            count(getattr(module, f"{name[0]}_proj_weight"), times)
    count(module.out_proj.weight, tokens["query"])  # which is not called as a module


def multiply_adds(kept: Mapping[str, Tensor], times: Mapping[str, float]) -> float:
    """Multiply-adds of a sample with these masks, given how often the weights are used."""
    return sum(count * times[label] for label, (count, _) in masks.kept_counts(kept).items())


def multiply_adds_share(kept: Mapping[str, Tensor], times: Mapping[str, float]) -> float:
    """The share, in [0, 1], of the dense model's multiply-adds that is left; 1 where it takes none."""
    counts = masks.kept_counts(kept)
    whole = sum(total * times[label] for label, (_, total) in counts.items())
    return multiply_adds(kept, times) / whole if whole else 1.0


SPAN = 0.005
"""Seconds of one reading: of as many calls as take so long."""

PAIRS = 11
"""Readings of each of two models, in turn: a machine that is busy for a while is so for both."""


def seconds_per_call(model: Callable[[Tensor], Tensor], inputs: Tensor, calls: int) -> float:
    """Seconds that a call takes, over so many."""
    began = time.perf_counter()
    for _ in range(calls):
        model(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
    return (time.perf_counter() - began) / calls


@torch.no_grad()
def compare_latency(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], inputs: Tensor
) -> tuple[float, float, float]:
    """Seconds a call of each, medians, and the median of what the second takes as a share of the first.

    `inputs` are a batch, float [n, ...], on the models' device; modules are left in evaluation mode.
    """
    for model in (first, second):
        if isinstance(model, nn.Module):
            model.eval()
    calls = [max(1, round(SPAN / seconds_per_call(model, inputs, 2))) for model in (first, second)]
    pairs = [
        (seconds_per_call(first, inputs, calls[0]), seconds_per_call(second, inputs, calls[1])) for _ in range(PAIRS)
    ]
    one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return one, other, statistics.median(b / a for a, b in pairs)


@dataclass
class LatencyMeter:
    """Measures pruned forms of a dense model, with a few samples of its data, float [n, ...]."""

    dense: nn.Module
    samples: Tensor = field(repr=False)

    def share(self, model: nn.Module) -> float:
        """The time for one sample as a share of the dense model's. A `UserError` where it cannot be traced."""
        smaller = compact(model, self.samples)
        return compare_latency(self.dense, smaller, self.samples[:1])[2]
