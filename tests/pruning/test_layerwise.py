import copy

import pytest
import torch
from toys import mlp

from tune_prune.pruning import iterative, masks
from tune_prune.pruning.layerwise import prune_layerwise
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Data
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

RATIOS = {"2": 0.8, "4": 0.6}


@pytest.fixture
def trained(toy_data: Data) -> iterative.State:
    model = mlp()
    fit(model, toy_data.train, Recipe(60, 0.1, batch_size=40), torch.Generator().manual_seed(0))
    return iterative.initial_state(model)


def plan(rounds: int, steps: int = 5) -> Plan:
    pruners = dict.fromkeys(RATIOS, "mag")
    return Plan(RATIOS, pruners, rounds=rounds, schedule="linear", steps=steps, final_steps=steps, batch_size=40)


def test_with_room_every_layer_takes_every_step(trained: iterative.State, toy_data: Data) -> None:
    steps = list(prune_layerwise(trained, plan(2), toy_data.train, toy_data.validation, 1, tradeoff=100))
    assert [(step.point.round, step.layer, step.reverted) for step in steps] == [
        (1, "2", False), (1, "4", False), (2, "2", False), (2, "4", False)
    ]  # fmt: skip
    assert [step.point.ratios for step in steps] == [
        {"2": 0.4, "4": 0.0}, {"2": 0.4, "4": 0.3}, {"2": 0.8, "4": 0.3}, {"2": 0.8, "4": 0.6}
    ]  # fmt: skip
    assert masks.kept_counts(trained.masks) == {"2": (1024 - round(0.8 * 1024), 1024), "4": (64 - round(0.6 * 64), 64)}
    assert steps[-1].point.compression == masks.compression(trained.masks)


def test_a_step_that_costs_too_much_is_taken_back_bit_for_bit(trained: iterative.State, toy_data: Data) -> None:
    error = evaluate(trained.model, toy_data.validation).metric
    before = copy.deepcopy(trained)
    # 80 % of the first layer in one step without retraining costs accuracy, and the tradeoff allows none
    steps = list(prune_layerwise(trained, plan(1, steps=0), toy_data.train, toy_data.validation, 1, tradeoff=-error))
    assert [(step.layer, step.reverted) for step in steps] == [("2", True), ("4", True)]
    for key, value in before.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[key], value)
    assert all(torch.equal(trained.masks[label], before.masks[label]) for label in before.masks)


def test_the_others_go_on(trained: iterative.State, toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    # pruning the first layer always costs accuracy, pruning the second never
    plain = iterative.prune_once

    def harmful(state: iterative.State, one: Plan, *rest: object) -> None:
        plain(state, one, *rest)
        if "2" in one.ratios:
            with torch.no_grad():
                masks.prunable(state.model)["2"].mul_(-1)

    monkeypatch.setattr("tune_prune.pruning.layerwise.prune_once", harmful)
    steps = list(prune_layerwise(trained, plan(3, steps=0), toy_data.train, toy_data.validation, 1, tradeoff=30))
    assert [(step.point.round, step.layer, step.reverted) for step in steps] == [
        (1, "2", True), (1, "4", False), (2, "4", False), (3, "4", False)
    ]  # fmt: skip
    assert masks.kept_counts(trained.masks)["2"] == (1024, 1024)
    assert steps[-1].point.ratios == {"2": 0.0, "4": 0.6}
