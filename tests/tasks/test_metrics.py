import copy
import math

import pytest
import torch
from torch import nn
from toys import Conv, seeded

from tune_prune.tasks.metrics import evaluate
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
    found = toy_data.validation.scores(model, batch_size)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_evaluation_changes_no_model(toy_data: Data, toy_model: nn.Module) -> None:
    before = copy.deepcopy(toy_model.state_dict())
    evaluate(toy_model, toy_data.validation)
    assert all(torch.equal(value, before[key]) for key, value in toy_model.state_dict().items())
