"""How far two outputs of models lie apart."""

import math

import torch

from tune_prune.tasks.outputs import Difference, differ


def test_differences() -> None:
    found = Difference()
    found.add([torch.tensor([1.0, -4.0, -math.inf]), torch.tensor([2])], [torch.tensor([1.0, -3.0, -math.inf])] * 2)
    assert found.share == math.inf  # of another shape
    found = Difference()
    found.add([torch.tensor([1.0, -4.0, -math.inf]), torch.tensor([2])], [torch.tensor([1.0, -3.0, -math.inf]),
              torch.tensor([3])])  # fmt: skip
    assert found.differences == [1, 1]
    assert found.share == 0.5
    found.add([torch.zeros(0)], [torch.zeros(0), torch.zeros(1)])
    assert found.share == math.inf  # one tensor more
    found = Difference()
    found.add([torch.tensor([math.nan, 1.0])], [torch.tensor([math.nan, 1.0])])
    assert found.share == 0
    found.add([torch.tensor([0.0, 1.0])], [torch.tensor([math.nan, 1.0])])
    assert found.share == math.inf


def test_outputs_of_any_structure() -> None:
    one, other = {"scores": torch.tensor([1.0, -4.0]), "hidden": (torch.ones(2),)}, torch.ones(2)
    assert differ(one, {**one, "hidden": (torch.tensor([1.0, 0.75]),)}) == 0.25
    assert differ(one, one) == 0
    assert differ(one, other) == math.inf
