"""Measures the latency of two models in turn, so that both are slowed down alike while a machine is busy."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from tune_prune.export.latency.device_script import synchronize
from tune_prune.tasks.batches import Batch, call_model, iterate_tensors

READING_SECONDS = 0.005
"""The length of one reading of a latency: as many calls as take so long."""

READINGS = 11
"""Readings of each of two models."""


def seconds_per_call(model: Callable[..., object], inputs: Batch, calls: int) -> float:
    """Measures the seconds that a call takes, as the mean of this many calls; `inputs` as `call_model` takes them."""
    began = time.perf_counter()
    for _ in range(calls):
        call_model(model, inputs)
    for device in {tensor.device for tensor in iterate_tensors(inputs)}:
        synchronize(device)
    return (time.perf_counter() - began) / calls


def count_calls(model: Callable[..., object], inputs: Batch) -> int:
    """Counts the calls of one reading; the first ones, which it makes itself, warm a model up."""
    return max(1, round(READING_SECONDS / seconds_per_call(model, inputs, 2)))


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
def compare_latency(
    first: Callable[..., object], second: Callable[..., object], inputs: Batch, readings: int = READINGS
) -> Readings:
    """Measures two models in turn; `inputs` are a batch on the models' device, as `call_model` takes it.

    Modules are left in evaluation mode.
    """
    for model in (first, second):
        if isinstance(model, nn.Module):
            model.eval()
    calls = [count_calls(model, inputs) for model in (first, second)]
    return Readings(
        [
            (seconds_per_call(first, inputs, calls[0]), seconds_per_call(second, inputs, calls[1]))
            for _ in range(readings)
        ]
    )


@torch.no_grad()
def measure_latency(model: nn.Module, inputs: Batch) -> float:
    """Measures the median seconds per call of one model, which is left in evaluation mode."""
    calls = count_calls(model.eval(), inputs)
    return statistics.median(seconds_per_call(model, inputs, calls) for _ in range(READINGS))
