import pytest
import torch
from torch import nn
from toys import mlp, seeded

from tune_prune.pruning import gates, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.criteria import score_layers
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Data, Split


def test_without_a_loss_the_penalty_draws_every_factor_alike() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        model[1].weight.zero_()  # no factor changes what the model answers
    sample = Split(torch.rand(9, 1, 8, 8), torch.arange(9) % 4)
    l1 = gates.l1_gate(Context(model, sample, seeded(0)))["2"]
    l2 = gates.l2_gate(Context(model, sample, seeded(0)))["2"]
    # Adam's first step has the size of the learning rate whatever the gradient; under an L1 penalty all steps have it
    assert torch.allclose(l1, torch.zeros_like(l1), atol=2 / gates.STEPS)
    assert torch.allclose(l2, l2.mean().expand_as(l2), atol=1e-5)
    assert float(l2.mean().abs()) < 0.1


def test_a_weight_that_is_needed_keeps_its_factor(toy_data: Data) -> None:
    model = mlp()
    with torch.no_grad():
        model[1].weight[:, 32:] = 0
    found = gates.l1_gate(Context(model, toy_data.train, seeded(0)))["2"].abs()
    assert found[:, :32].mean() > found[:, 32:].mean()


def test_on_lenet5_they_rank_by_themselves_and_better_than_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    # a sixth of the work: it ranks worse than the settings that are used, and the ranks are their own as well
    monkeypatch.setattr(gates, "STEPS", 100)
    monkeypatch.setattr(gates, "BATCH", 64)
    data = load_data("mnist")
    validation = Split(data.validation.inputs[:500], data.validation.labels[:500])
    sample = data.train.draw(512, seeded(0))
    errors: dict[str, list[float]] = {}
    lowest: dict[str, set[int]] = {}
    for name in ("mag", "l1", "l2", "random"):
        dense = load_dense_model("lenet5", None, "test")
        scores = score_layers(dict.fromkeys(prunable(dense), name), Context(dense, sample, seeded(0)))
        lowest[name] = set(scores["8"].flatten().argsort()[:144_000].tolist())
        errors[name] = []
        for ratio in (0.4, 0.5, 0.6):
            model = load_dense_model("lenet5", None, "test")
            made = masks.dense_masks(model)
            masks.apply(model, {label: masks.shrink(made[label], scores[label], ratio) for label in made})
            errors[name].append(evaluate(model, validation).metric)
    for name in ("l1", "l2"):
        assert all(a < b for a, b in zip(errors[name], errors["random"], strict=True)), errors
    for one, other in (("l1", "l2"), ("l1", "mag"), ("l2", "mag")):
        assert 0.5 < len(lowest[one] & lowest[other]) / 144_000 < 0.99, (one, other)
