import io
import itertools
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from searches import SPACE
from strategies import loss_curves
from torch import nn
from toys import images, mlp, seeded, task_of

from tune_prune.hpo import run_files
from tune_prune.hpo.groups import LossCurve
from tune_prune.hpo.parameters import Choice, Range
from tune_prune.pruning.masks import prunable
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe
from tune_prune.workflows import initial_trials
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.initial_trials import compression_levels, space_factors
from tune_prune.workflows.loss_curves import GRID, POWERS, RISES, _fit, count_images, measure_curves
from tune_prune.workflows.preparation import prepare

# Curves


@given(st.floats(1e-5, 1e-2), st.floats(0.6, 5.0))
def test_a_power_law_is_found_again(scale: float, power: float) -> None:
    keeps = [1 - ratio for ratio in GRID]
    found = _fit([(keep, scale * keep**-power) for keep in keeps])
    inside = [keep for keep in keeps if RISES[0] < scale * keep**-power < RISES[1]]
    if len(inside) > 1:
        assert found == (pytest.approx(scale, rel=1e-6), pytest.approx(power, rel=1e-6))


@pytest.mark.parametrize("rises", [[0.0, -0.001, 0.0], [2.0, 2.3, 2.3], [0.0, 0.5, 2.0], [0.5, 0.4, 0.3]])
def test_whatever_was_measured_makes_a_curve_that_falls(rises: list[float]) -> None:
    scale, power = _fit(list(zip((0.5, 0.1, 0.01), rises, strict=True)))
    assert scale > 0
    assert POWERS[0] <= power <= POWERS[1]


def test_measured_on_a_trained_network() -> None:
    model = mlp()
    fit(model, images().train, Recipe(steps=150, lr=0.1), seeded(0))
    task = task_of(model, "toys:mlp")
    found = measure_curves(task, {"2": Range(0.1, 0.9), "4": Choice((0.3, 0.5))}, "mag", torch.device("cpu"))
    assert {label: curve.weights for label, curve in found.items()} == {
        label: weight.numel() for label, weight in prunable(model).items()
    }
    assert (found["2"].low, found["2"].high) == (pytest.approx(0.1), 0.9)
    assert (found["4"].low, found["4"].high) == (0.5, 0.7)
    assert measure_curves(task, {"2": 0.25}, "mag", torch.device("cpu"))["2"].low == 0.75
    assert all(torch.equal(value, task.weights[key]) for key, value in model.state_dict().items())


# Levels


def rise(curve: LossCurve, ratio: float) -> float:
    return curve.scale * (1 - ratio) ** -curve.power


@given(loss_curves, st.integers(0, 1000))
@example({"a": LossCurve(weights=10, scale=0.0625, power=6.0, low=0.002, high=1.0)}, 1)  # a price of e^41
def test_levels_climb_within_their_bounds(found: dict[str, LossCurve], others: int) -> None:
    factors = space_factors(6, 2, 200)
    total = others + sum(curve.weights for curve in found.values())
    before = dict.fromkeys(found, -1.0)
    for ratios in compression_levels(found, others, factors):
        kept = others
        for label, curve in found.items():
            assert 1 - curve.high - 1e-9 <= ratios[label] <= 1 - curve.low + 1e-9
            assert ratios[label] >= before[label]
            kept += curve.weights * (1 - ratios[label])
        bounded = all(
            ratios[label] > 1 - c.low - 1e-9 or ratios[label] < 1 - c.high + 1e-9 for label, c in found.items()
        )
        assert bounded or min(abs(total / kept / factor - 1) for factor in factors) < 1e-6
        before = ratios


@given(loss_curves, st.floats(2, 100), st.integers(0, 2**32))
def test_no_other_ratios_that_keep_as_few_weights_cost_less(
    found: dict[str, LossCurve], factor: float, seed: int
) -> None:
    draw = random.Random(seed)
    for ratios in compression_levels(found, 0, [factor]):
        cost = sum(rise(curve, ratios[label]) for label, curve in found.items())
        for _ in range(20):
            # as many weights, some of them in another layer
            giver, taker = found[one := draw.choice(list(found))], found[other := draw.choice(list(found))]
            room = min((1 - ratios[one] - giver.low) * giver.weights, (taker.high - 1 + ratios[other]) * taker.weights)
            moved = dict(ratios)
            weights = draw.random() * max(room, 0.0)
            moved[one] += weights / giver.weights
            moved[other] -= weights / taker.weights
            assert sum(rise(curve, moved[label]) for label, curve in found.items()) >= cost * (1 - 1e-6)


def test_a_layer_that_bears_more_is_pruned_more() -> None:
    found = {"a": LossCurve(1000, 1e-4, 2.0, 0.001, 1.0), "b": LossCurve(1000, 1e-2, 2.0, 0.001, 1.0)}
    (ratios,) = compression_levels(found, 0, [10])
    assert ratios["a"] > ratios["b"]


def test_spaced() -> None:
    assert space_factors(1, 3, 100) == [3]
    assert [round(factor, 9) for factor in space_factors(3, 1, 100)] == [1, 10, 100]
    found = space_factors(5, 2, 32)
    assert all(math.isclose(b / a, 2) for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("trained_on", "layers", "images", "with_norms"),
    [
        (100 * 600 * 128, 5, 1000, 1000),
        (4 * 20 * 128, 22, 0, 0),
        (100 * 100 * 128, 54, 547, 291),
        (100 * 60 * 128, 54, 328, 0),
        (1e12, 1000, 1000, 1000),
    ],
)
def test_measuring_is_little_beside_training(trained_on: float, layers: int, images: int, with_norms: int) -> None:
    assert count_images(trained_on, layers, mlp()) == images
    assert count_images(trained_on, layers, nn.Sequential(mlp(), nn.BatchNorm1d(10))) == with_norms


def test_a_search_by_time_counts_the_steps_that_it_has(tmp_path: Path) -> None:
    """Without a number of trials, layers are measured where the time allows for much more training."""
    (tmp_path / "space.toml").write_text(SPACE)
    settings = {"time_budget": 60.0, "force": True, "device": "cpu"}
    config, space, _ = run_files.start_run(str(tmp_path / "space.toml"), settings)
    said = io.StringIO()
    console = SearchConsole(Console(file=said, width=200))
    prepared = prepare(config, space, console.say)
    few, many = (initial_trials.plan_initial_trials(space, prepared, config, console, n) for n in (10, 100_000))
    assert few["levels"] == []
    assert len(many["levels"]) > 3
    assert "no initial levels: measuring the layers would take long compared with so little training" in said.getvalue()
