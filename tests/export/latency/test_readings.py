"""Latencies of two models, read in turn; no duration is asserted."""

import pytest
import torch
from torch import nn
from toys import mlp, seeded

from tune_prune.export.latency import readings as module
from tune_prune.export.latency.readings import READINGS, Readings, compare_latency

SAMPLES = torch.randn(8, 1, 8, 8, generator=seeded(0))


class Clock:
    """A clock that moves on by a second for each output of a watched model's last layer."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def watch(self, model: nn.Module) -> nn.Module:
        def moved(module: nn.Module, args: object, output: torch.Tensor) -> None:
            self.now += output.numel()

        model[-1].register_forward_hook(moved)
        return model


def test_the_share_is_of_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    first = clock.watch(nn.Sequential(nn.Linear(3, 8)))
    second = clock.watch(nn.Sequential(nn.Linear(3, 2)))
    readings = compare_latency(first, second, torch.zeros(5, 3))
    assert readings.pairs == [(40.0, 10.0)] * READINGS
    assert readings.medians == (40.0, 10.0)
    assert readings.share == 0.25


def test_all_figures_are_of_the_same_pairs() -> None:
    readings = Readings([(2.0, 1.0), (8.0, 2.0), (3.0, 3.0), (4.0, 1.0), (1.0, 0.5)])
    assert readings.medians == (3.0, 1.0)
    assert readings.speedups == (1.5, 2.0, 4.0)  # of 1, 2, 2, 4 and 4 times
    assert readings.share == 0.5


def test_a_real_clock_moves() -> None:
    assert all(value > 0 for pair in compare_latency(mlp(), mlp(), SAMPLES).pairs for value in pair)
