"""Optimizers of the user's: any of torch's, with groups of parameters; masks hold, and their state can be saved."""

import copy
import json
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import fault, mlp, seeded

from tune_prune.pruning import masks
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Rows
from tune_prune.tasks.splits import AnySplit, Data, Split
from tune_prune.training.loop import fit, make_optimizer
from tune_prune.training.optim import Recipe
from tune_prune.training.torch_optimizer import TorchOptimizer

NEEDS_MORE = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}  # a closure, sparse gradients, matrices alone
NAMES = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name not in NEEDS_MORE
)
ADDRESSES = [
    *(f"torch.optim:{name}" for name in NAMES),
    "torch.optim:AdamW(weight_decay=0.5)",
    "torch.optim:SGD(momentum=0.9,weight_decay=0.5)",
    "test_torch_optimizer:muon",
    "test_torch_optimizer:grouped",
]


def muon(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Muon([one for one in model.parameters() if one.dim() == 2], lr, weight_decay=0.5)


def grouped(named_parameters: list[tuple[str, nn.Parameter]], lr: float) -> torch.optim.Optimizer:
    """Biases learn ten times as fast, without decay."""
    biases = [one for name, one in named_parameters if name.endswith("bias")]
    others = [one for name, one in named_parameters if not name.endswith("bias")]
    groups = [{"params": others, "weight_decay": 0.1}, {"params": biases, "lr": 10 * lr}]
    return torch.optim.AdamW(groups, lr, weight_decay=0.0)


def nothing(parameters: list[nn.Parameter], lr: float) -> int:
    return 3


def broken(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr, momentum="much")  # type: ignore[arg-type]


def kinds(data: Data, **settings: Any) -> list[AnySplit]:
    """The toys' training images as both kinds of split, with these settings."""
    objective, train = make_objective(TaskSettings(**settings)), data.train
    rows = Rows((train.inputs, train.labels))
    return [Split(train.inputs, train.labels, objective=objective), BatchSplit(rows, objective, "toys")]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", [0, 1])
def test_removed_weights_stay_zero_after_every_step(toy_data: Data, address: str, kind: int) -> None:
    split = kinds(toy_data, optimizer=address)[kind]
    torch.manual_seed(0)
    model = mlp()
    start = copy.deepcopy(model.state_dict())
    recipe = Recipe(4, 0.02, batch_size=60, clip=1.0)
    optimizer = make_optimizer(model, recipe, split.objective)
    fit(model, split, recipe, seeded(0), optimizer=optimizer)  # so that removed weights have a state
    found = {label: (weight.abs() > 0.05).float() for label, weight in masks.prunable(model).items()}
    masks.apply(model, found)
    seen: list[bool] = []

    def look(epoch: int, measured: object) -> None:
        zero = [weight[found[label] == 0] for label, weight in masks.prunable(model).items()]
        seen.append(all(bool((values == 0).all()) and len(values) > 0 for values in zero))

    hard = Recipe(5, 0.05, batch_size=240)
    fit(model, split, hard, seeded(1), masks=masks.pairs(model, found), optimizer=optimizer, on_epoch=look)
    assert seen == 5 * [True]
    moved = [not torch.equal(value, start[key]) for key, value in model.state_dict().items()]
    assert all(moved[0::2])  # the weights that are left learn


@pytest.mark.parametrize("kind", [0, 1])
def test_both_kinds_of_split_train_as_a_loop_by_hand(toy_data: Data, kind: int) -> None:
    split = kinds(toy_data, optimizer="test_torch_optimizer:grouped")[kind]
    torch.manual_seed(0)
    ours = mlp()
    theirs, recipe = copy.deepcopy(ours), Recipe(9, 0.01, batch_size=60)
    fit(ours, split, recipe, seeded(5))
    optimizer, order = grouped(list(theirs.named_parameters()), 0.01), seeded(5)
    for step in range(9):
        if step % 4 == 0:
            epoch = torch.randperm(240, generator=order).split(60)
        index = epoch[step % 4]
        optimizer.zero_grad()
        inputs = toy_data.train.as_float(toy_data.train.inputs[index])
        nn.functional.cross_entropy(theirs(inputs), toy_data.train.labels[index]).backward()
        optimizer.param_groups[0]["lr"] = recipe.lr_at(step)
        optimizer.param_groups[1]["lr"] = 10 * recipe.lr_at(step)
        optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def steps(optimizer: TorchOptimizer, model: nn.Module, first: int, count: int) -> None:
    for step in range(first, first + count):
        inputs = torch.randn(8, 1, 8, 8, generator=seeded(step))
        model(inputs).square().mean().backward()
        optimizer.step(0.01 / (step + 1))


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_saved_state_goes_on_as_if_nothing_had_been(address: str) -> None:
    objective, recipe = make_objective(TaskSettings(optimizer=address)), Recipe(8, 0.01)

    def begin() -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model = mlp()
        return model, make_optimizer(model, recipe, objective)

    whole, optimizer = begin()
    steps(optimizer, whole, 0, 3)
    weights, (tensors, rest) = copy.deepcopy(whole.state_dict()), optimizer.save_state()
    tensors, rest = {key: value.clone() for key, value in tensors.items()}, json.loads(json.dumps(rest))
    steps(optimizer, whole, 3, 3)
    again, other = begin()
    again.load_state_dict(weights)
    other.load_state(tensors, rest)
    steps(other, again, 3, 3)
    for one, two in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_cannot_be_saved_is_named() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.param_groups[0]["schedule"] = object()
    said = fault(TorchOptimizer(optimizer, 0.1, "mine:sgd").save_state)
    assert said.startswith("optimizer 'mine:sgd': its state holds a object under optimizer/param_groups/0/schedule")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "test_torch_optimizer:nothing",
            r"nothing' \(test_torch_optimizer.py:\d+\) returned int; it must return a torch",
        ),
        ("test_torch_optimizer:broken", r"fails at test_torch_optimizer.py:\d+, `return torch.optim.SGD\(parameters"),
        ("torch.optim:AdamW(weight=1)", "unexpected keyword argument 'weight'"),
        ("torch.optim:AdamV", "torch.optim has no 'AdamV'; nearest callables: Adam"),
    ],
)
def test_mistakes_are_named(toy_data: Data, address: str, said: str) -> None:
    assert re.search(said, fault(lambda: fit(mlp(), kinds(toy_data, optimizer=address)[0], Recipe(2, 0.1), seeded(0))))


def test_an_optimizer_that_wants_a_closure_is_named(toy_data: Data) -> None:
    split = kinds(toy_data, optimizer="torch.optim:LBFGS")[0]
    said = fault(lambda: fit(mlp(), split, Recipe(2, 0.1), seeded(0)))
    assert said.startswith("optimizer 'torch.optim:LBFGS' fails")
    assert "closure" in said


def test_frozen_parameters_are_left_out(toy_data: Data) -> None:
    model = mlp()
    model[1].weight.requires_grad_(requires_grad=False)
    before: Tensor = model[1].weight.clone()
    fit(model, kinds(toy_data, optimizer="torch.optim:AdamW(weight_decay=0.5)")[0], Recipe(3, 0.1), seeded(0))
    assert torch.equal(model[1].weight, before)
