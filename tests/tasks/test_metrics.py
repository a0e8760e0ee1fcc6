import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from toys import Conv, seeded

from tune_prune.tasks.metrics import ERROR, Metric, evaluate
from tune_prune.tasks.splits import Data, Split, as_float
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe


def test_evaluate_against_a_count_by_hand() -> None:
    model = nn.Linear(3, 3, bias=False)
    model.weight.data = torch.eye(3)
    inputs = torch.tensor([[3.0, 0, 0], [0, 2, 1], [0, 2, 1], [1, 0, 2]])
    measured = evaluate(model, Split(inputs, torch.tensor([0, 1, 2, 0])))
    assert measured.metric == 50
    e = math.e
    losses = [-math.log(e**3 / (e**3 + 2)), -math.log(e**2 / (e**2 + e + 1)), -math.log(e / (e**2 + e + 1))]
    assert measured.loss == pytest.approx((sum(losses) + losses[2]) / 4)


@pytest.mark.parametrize("batch_size", [1, 7, 120, 500])
def test_the_batch_size_changes_no_answer(toy_data: Data, batch_size: int) -> None:
    model = Conv()
    fit(model, toy_data.train, Recipe(5, 0.1), seeded(0))
    expected = model.eval()(as_float(toy_data.validation.inputs)).detach()
    model.train()
    found = replace(toy_data.validation, batch_size=batch_size).scores(model)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize(
    ("metric", "dense", "tradeoff"),
    [
        (ERROR, 1.36, 0.5),
        (ERROR, 0.0, 0.5),
        (Metric("rmse"), 50.0, 0.5),
        (Metric("f1", "higher"), 0.91449, 0.00914),
        (Metric("r2", "higher"), -2.0, 0.02),
        (Metric("rmse"), 0.0, 0.0),
    ],
)
def test_the_tradeoff_that_nobody_gives(metric: Metric, dense: float, tradeoff: float) -> None:
    assert metric.default_tradeoff(dense) == tradeoff


def test_evaluation_changes_no_model(toy_data: Data, toy_model: nn.Module) -> None:
    before = copy.deepcopy(toy_model.state_dict())
    evaluate(toy_model, toy_data.validation)
    assert all(torch.equal(value, before[key]) for key, value in toy_model.state_dict().items())


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3))
def test_a_cost_is_lower_where_a_value_is_better(dense: float, tradeoff: float) -> None:
    lower, higher = Metric("rmse"), Metric("closeness", "higher")
    assert lower.limit(dense, tradeoff) == -higher.limit(-dense, tradeoff) >= dense
    assert lower.tradeoff(dense, dense + tradeoff) == higher.tradeoff(-dense, -dense - tradeoff)
    assert lower.limit(dense, lower.tradeoff(dense, dense + tradeoff)) >= dense + tradeoff
    assert higher.value(higher.cost(dense)) == lower.value(lower.cost(dense)) == dense


def test_values_in_words() -> None:
    f1 = Metric("f1", "higher")
    assert ERROR.describe(1.355, "validation") == "1.35 % validation error"
    assert f1.describe(0.914, "validation") == "validation f1 0.9140"
    assert (ERROR.format_tradeoff(0.5), f1.format_tradeoff(0.01)) == ("0.5 points", "0.01")
    assert (ERROR.val, ERROR.test, f1.val, f1.test) == ("val_error", "test_error", "val_f1", "test_f1")


@pytest.mark.parametrize("metric", [ERROR, Metric("rmse")])
def test_a_limit_has_no_error_of_floating_point(metric: Metric) -> None:
    assert metric.limit(0.86, 0.5) == 1.36
    assert metric.tradeoff(0.86, 1.36) == 0.5


def test_a_limit_of_any_magnitude() -> None:
    assert Metric("mse").limit(2e-12, 1e-12) == 3e-12
    assert Metric("perplexity").limit(3e9, 0.5) == 3000000000.5
