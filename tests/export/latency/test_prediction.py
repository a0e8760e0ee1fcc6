"""Predictions from tables whose times are known in closed form."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import mlp, seeded

from tune_prune.export.compaction import find_removable
from tune_prune.export.latency.prediction import LatencyPredictor, cross_validate, fit_latency, fit_nonnegative
from tune_prune.export.latency.programs import Cost, record_program
from tune_prune.export.latency.table import LatencyTable, TimedNetwork, fingerprint
from tune_prune.pruning import masks
from tune_prune.pruning.channels import removal

NAMES = ("aten.convolution.default", "aten.relu.default", "aten.addmm.default")
TRUTH = np.array(
    [[3e-6, 2e-9, 8e-9, 1e-11, 0.0, 0.0], [1e-6, 4e-9, 0.0, 0.0, 0.0, 0.0], [2e-6, 0.0, 0.0, 0.0, 3e-11, 5e-9]]
)


def network(numbers: Sequence[Sequence[float]], truth: np.ndarray = TRUTH) -> TimedNetwork:
    costs = [Cost(name, *row) for name, row in zip(NAMES, numbers, strict=True)]
    seconds = [float(np.dot(row, [1.0, *cost[1:]])) for row, cost in zip(truth, costs, strict=True)]
    return TimedNetwork(costs, seconds, sum(seconds))


def drawn(count: int, seed: int = 0) -> list[TimedNetwork]:
    numbers = torch.rand(count, 3, 5, generator=seeded(seed)) * torch.tensor([1e4, 1e4, 1e7, 2e7, 1e3])
    return [network(one.tolist()) for one in numbers]


def test_times_that_are_linear_are_predicted_exactly() -> None:
    table = LatencyTable("m", 1, "d", "t", drawn(31))
    model = fit_latency(table.pruned)
    for unseen in drawn(20, seed=1):
        assert model.predict_seconds(unseen.costs) == pytest.approx(unseen.total, rel=1e-6)
    assert cross_validate(table) < 1e-6


def test_a_network_takes_what_it_takes_as_a_whole() -> None:
    slower = [TimedNetwork(one.costs, one.seconds, 1.5 * one.total) for one in drawn(30)]
    unseen = drawn(1, seed=1)[0]
    assert fit_latency(slower).predict_seconds(unseen.costs) == pytest.approx(1.5 * unseen.total, rel=1e-6)


def test_other_operations_are_predicted_by_their_names() -> None:
    same = np.stack([TRUTH[1]] * 3)  # as all operations take as long, an unknown one does, too
    networks = [network([cost[1:] for cost in one.costs], same) for one in drawn(30)]
    model = fit_latency(networks)
    costs = [Cost("aten.relu.default", 100.0), Cost("aten.gelu.default", 200.0)]
    assert model.predict_seconds(costs) == pytest.approx(2 * 1e-6 + 300 * 4e-9, rel=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_coefficients_are_never_negative(seed: int) -> None:
    generator = seeded(seed)
    features = torch.rand(12, 4, generator=generator).double().numpy()
    values = torch.randn(12, generator=generator).double().numpy()
    found = fit_nonnegative(features, values)
    assert (found >= 0).all()
    # no single coefficient that is used could be better
    used = np.flatnonzero(found)
    gradient = features.T @ (features @ found - values)
    assert np.abs(gradient[used]).max(initial=0.0) < 1e-8


def test_known_coefficients_come_back() -> None:
    features = torch.rand(30, 4, generator=seeded(0)).double().numpy() * [1.0, 1e6, 1e3, 0.0]
    truth = np.array([2.0, 3e-6, 0.0, 0.0])
    assert fit_nonnegative(features, features @ truth) == pytest.approx(truth, abs=1e-9)


def test_a_point_is_predicted_from_the_network_that_is_left() -> None:
    model, inputs = mlp(), torch.randn(1, 1, 8, 8)
    costs = record_program(model, inputs).costs

    def timed(seconds_per_weight: float) -> TimedNetwork:
        seconds = [1e-6 + seconds_per_weight * cost.weights for cost in costs]
        return TimedNetwork(costs, seconds, sum(seconds))

    table = LatencyTable(fingerprint(costs), 1, "d", "t", [timed(1e-6), timed(1e-6), timed(1e-6)])
    predictor = LatencyPredictor(table, inputs)
    groups = find_removable(model, inputs).groups
    found = masks.dense_masks(model)
    scores = {label: torch.rand(mask.shape, generator=seeded(0)) for label, mask in found.items()}
    whole = predictor.predict(model, found, groups)
    assert whole["latency"] == pytest.approx(1.0)
    made = removal.remove(model, groups, found, scores, {group.name: 0.5 for group in groups})
    masks.apply(model, made)
    half = predictor.predict(model, made, groups)
    assert half["latency"] < 1
    assert half == pytest.approx(predictor.predict(model, made, ()))  # `compact` finds the same network
    assert half["latency_ms"] == pytest.approx(1000 * table.dense_seconds * half["latency"])
