"""Costs of a model besides its weights: multiply-adds of one sample, and latency.

Multiply-adds are counted. A weight of a convolution is used once at every output position, a weight of a linear layer
once for every token, one of a recurrent layer once for every time step, and one of an embedding, which is looked up,
never (`layers`). A layer therefore takes its kept weights times their uses; inputs that are zero because of other
layers save nothing.

Latency is measured on the compacted model (`compaction`), in turn with the dense model, since zeros in a dense tensor
are multiplied like any other number.
"""

import copy
import inspect
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.export.compaction import compact
from tune_prune.pruning import layers, masks, weights
from tune_prune.tasks.batches import Batch, call_model, iterate_tensors, record_calls
from tune_prune.tasks.splits import AnySplit

READING_SECONDS = 0.005
"""The length of one reading of a latency: as many calls as take so long."""

READINGS = 11
"""Readings of each of two models, taken in turn: while a machine is busy, both are slowed down."""


def count_uses(model: nn.Module, sample: AnySplit) -> dict[str, float]:
    """Counts how often each weight of a layer is used for one sample, by label; `sample` are a few samples.

    Each layer that shares a weight uses it; a layer that the samples do not reach is used 0 times.
    """
    model = copy.deepcopy(model).eval()
    uses: Counter[int] = Counter()

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        found = list(weights.stored_weights(module))
        named = inspect.signature(module.forward).bind(*args, **kwargs).arguments if found else {}
        for weight, stored in found:
            parameter, axis = stored.parameter, weight.outputs_axis
            call = layers.Call(named, output, parameter, None if axis is None else parameter.shape[axis])
            uses[id(parameter)] += weight.uses(call) / sample.count  # type: ignore[assignment]

    hooks = [module.register_forward_hook(count, with_kwargs=True) for module in model.modules()]
    with torch.no_grad():
        sample.run(model, sample.count, sample.count)
    for hook in hooks:
        hook.remove()
    found = weights.find_weights(model).items()
    return {label: float(uses[id(weight.stored.parameter)]) for label, weight in found}


def find_inputs(model: nn.Module, sample: AnySplit) -> Tensor:
    """The samples as the model gets them, float [n, ...]; a `UserError` where it takes anything but one tensor."""
    with torch.no_grad(), record_calls(model.eval()) as calls:
        sample.run(model, sample.count, sample.count)
    args, kwargs = (calls[0].args, calls[0].kwargs) if calls else ((), {})
    if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
        return args[0]
    raise UserError("latency and exported programs need a model that is called with one tensor; this one is not")


def multiply_adds(kept: Mapping[str, Tensor], uses: Mapping[str, float]) -> float:
    """Multiply-adds of one sample under these masks; `uses` are from `count_uses`."""
    return sum(count * uses[label] for label, (count, _) in masks.kept_counts(kept).items())


def multiply_adds_share(kept: Mapping[str, Tensor], uses: Mapping[str, float]) -> float:
    """The share of the dense model's multiply-adds that masks leave, in [0, 1]; 1 where the dense model takes none."""
    counts = masks.kept_counts(kept)
    dense = sum(total * uses[label] for label, (_, total) in counts.items())
    return multiply_adds(kept, uses) / dense if dense else 1.0


def seconds_per_call(model: Callable[..., object], inputs: Batch, calls: int) -> float:
    """Measures the seconds that a call takes, as the mean of this many calls; `inputs` as `call_model` takes them."""
    began = time.perf_counter()
    for _ in range(calls):
        call_model(model, inputs)
    for device in {tensor.device for tensor in iterate_tensors(inputs) if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / calls


class Readings(NamedTuple):
    """The latencies of two models, read in turn: pairs of seconds per call. All figures are of the same pairs."""

    pairs: list[tuple[float, float]]

    @property
    def medians(self) -> tuple[float, float]:
        """The median seconds per call of each model."""
        first, second = zip(*self.pairs, strict=True)
        return statistics.median(first), statistics.median(second)

    @property
    def share(self) -> float:
        """The median over the pairs of the second's time as a share of the first's."""
        return statistics.median(second / first for first, second in self.pairs)

    @property
    def speedups(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile of how many times as fast the second is, in a pair."""
        low, middle, high = statistics.quantiles((first / second for first, second in self.pairs), n=4)
        return low, middle, high


@torch.no_grad()
def compare_latency(first: Callable[..., object], second: Callable[..., object], inputs: Batch) -> Readings:
    """Measures two models in turn; `inputs` are a batch on the models' device, as `call_model` takes it.

    Modules are left in evaluation mode.
    """
    for model in (first, second):
        if isinstance(model, nn.Module):
            model.eval()
    calls = [max(1, round(READING_SECONDS / seconds_per_call(model, inputs, 2))) for model in (first, second)]
    return Readings(
        [
            (seconds_per_call(first, inputs, calls[0]), seconds_per_call(second, inputs, calls[1]))
            for _ in range(READINGS)
        ]
    )


@dataclass
class LatencyMeter:
    """Measures the latency of pruned forms of a dense model; `samples` are a few of its data, float [n, ...]."""

    dense: nn.Module
    samples: Tensor = field(repr=False)

    def share(self, model: nn.Module) -> float:
        """The time of one sample, as a share of the dense model's. Raises a `UserError` where it branches on data."""
        compacted = compact(model, self.samples)
        return compare_latency(self.dense, compacted, self.samples[:1]).share
