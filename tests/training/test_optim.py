import subprocess
import sys

import pytest
import torch
from torch import nn

from tune_prune.training.optim import SGD, Recipe


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 10))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_bit_for_bit_what_torch_does(momentum: float, weight_decay: float) -> None:
    ours, reference_model, inputs = network(), network(), torch.randn(5, 16, 1, 8, 8)
    sgd = SGD(ours.parameters(), momentum, weight_decay)
    reference = torch.optim.SGD(
        reference_model.parameters(), lr=1.0, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )
    for step, batch in enumerate(inputs):
        ours(batch).square().mean().backward()
        sgd.step(0.1 / (step + 1))
        reference.zero_grad()
        reference_model(batch).square().mean().backward()
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        reference.step()
        for a, b in zip(ours.parameters(), reference_model.parameters(), strict=True):
            assert torch.equal(a, b)


def test_what_has_no_gradient_stays_and_what_needs_none_is_left_out() -> None:
    used, unused, frozen = (nn.Parameter(torch.ones(2)) for _ in range(3))
    frozen.requires_grad_(requires_grad=False)
    sgd = SGD([used, unused, frozen], 0.9, 0.1)
    sgd.step(1.0)
    assert torch.equal(used, torch.ones(2))  # not even decayed
    used.sum().backward()
    sgd.step(1.0)
    assert used.grad is None
    assert not torch.equal(used, torch.ones(2))
    assert torch.equal(unused, torch.ones(2))
    assert len(sgd.velocities) == 2


def test_an_embedding_with_sparse_gradients_learns_as_one_with_dense_ones() -> None:
    models = [nn.Sequential(nn.Embedding(6, 3, sparse=sparse), nn.Linear(3, 2)) for sparse in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [SGD(model.parameters(), 0.9, 0.01) for model in models]
    for words in (torch.tensor([1, 1, 4]), torch.tensor([0, 4])):
        for model, optimizer in zip(models, optimizers, strict=True):
            model(words).square().mean().backward()
            optimizer.step(0.1)
    assert torch.equal(models[0][0].weight, models[1][0].weight)


def test_training_does_not_import_the_compiler() -> None:
    code = """
import sys, torch
from tune_prune.tasks.splits import Split
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

split = Split(torch.zeros(256, 4), torch.zeros(256, dtype=torch.long))
fit(torch.nn.Linear(4, 2), split, Recipe(2, 0.1), torch.Generator())
sys.exit('torch._dynamo' in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Learning rates


def test_the_cosine_without_warm_up() -> None:
    recipe = Recipe(steps=1000, lr=0.2)
    rates = [recipe.lr_at(step) for step in range(1000)]
    assert rates[0] == 0.2
    assert rates[500] == pytest.approx(0.1)
    assert 0 < rates[-1] < 1e-5
    assert rates == sorted(rates, reverse=True)


def test_warm_up_rises_in_equal_steps_to_the_highest_rate() -> None:
    recipe = Recipe(steps=100, lr=1.0, warmup=0.2)
    rates = [recipe.lr_at(step) for step in range(100)]
    assert rates[:21] == pytest.approx([(step + 1) / 21 for step in range(21)])
    assert rates[20] == max(rates) == 1.0
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_training_has_rates_too(steps: int, warmup: float) -> None:
    rates = [Recipe(steps=steps, lr=0.1, warmup=warmup).lr_at(step) for step in range(steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
