import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import Conv, Halved, mlp, seeded

from tune_prune.pruning import loss_change
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.parametrized import Stored
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.splits import Data, Split, as_float


def convolutions() -> nn.Sequential:
    """Padding, stride, dilation, with and without bias; the grouped one cannot be measured in stacks."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(3, 4, 3, stride=2, dilation=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6)),
        nn.Linear(6, 4),
    )


def image_rows() -> nn.Sequential:
    """A linear layer that is applied to each row: a weight changes several places of its output."""
    return nn.Sequential(nn.Flatten(1, 2), nn.Linear(8, 3), nn.Flatten(), nn.Linear(24, 4))


def one_by_one(model: nn.Module, split: Split) -> dict[str, Tensor]:
    """The reference: sets each weight to zero, runs the whole model, sets the weight back."""
    found = {}
    dense = F.cross_entropy(model.eval()(as_float(split.inputs)), split.labels)
    for label, weight in prunable(model.eval()).items():
        flat, losses = weight.data.flatten(), torch.empty(weight.numel())
        for i, value in enumerate(flat.tolist()):
            changed = flat.clone()
            changed[i] = 0
            weight.data = changed.reshape(weight.shape)
            losses[i] = F.cross_entropy(model(as_float(split.inputs)), split.labels) - dense
            assert value == flat[i]
        weight.data = flat.reshape(weight.shape)
        found[label] = losses.reshape(weight.shape)
    return found


@pytest.mark.parametrize("model", [mlp, Conv, convolutions, image_rows])
@pytest.mark.parametrize("chunk", [1, 2**23])
@torch.no_grad()
def test_it_agrees_with_the_loop(
    model: type[nn.Module], chunk: int, toy_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_change, "CHUNK", chunk)
    made = model()
    sample = Split(toy_data.train.inputs[:12], toy_data.train.labels[:12])
    before = copy.deepcopy(made.state_dict())
    found, expected = loss_change.loss_change(Context(made, sample, seeded(0))), one_by_one(made, sample)
    assert list(found) == list(expected)
    for label, losses in expected.items():
        assert torch.allclose(found[label], losses, rtol=0, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_channels_last_makes_no_difference(toy_data: Data) -> None:
    made = convolutions()
    one = loss_change.loss_change(Context(made, toy_data.validation, seeded(0)))
    other = loss_change.loss_change(Context(made.to(memory_format=torch.channels_last), toy_data.validation, seeded(0)))
    assert all(torch.allclose(one[label], other[label], rtol=0, atol=1e-5) for label in one)


def test_a_weight_that_is_zero_is_not_measured(toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    made = mlp()
    with torch.no_grad():
        for weight in prunable(made).values():
            weight[:, 1:] = 0
    measured: list[int] = []
    plain = loss_change._measure_stacked

    def counted(model: nn.Sequential, at: int, stored: Stored, split: Split, todo: Tensor):
        measured.append(len(todo))
        return plain(model, at, stored, split, todo)

    monkeypatch.setattr(loss_change, "_measure_stacked", counted)
    found = loss_change.loss_change(Context(made, toy_data.validation, seeded(0)))
    assert measured == [16, 4]
    assert not any(changes[:, 1:].any() for changes in found.values())


def test_it_says_how_far_it_is(toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_change, "REPORT_SECONDS", -1.0)
    said: list[str] = []
    loss_change.loss_change(Context(mlp(), toy_data.validation, seeded(0), said.append))
    assert said[0] == "emp: layer 2: 1,024 of 1,024 weights, about 0 s left"
    assert said[-1] == "emp: layer 4: 64 of 64 weights, about 0 s left"


@pytest.mark.parametrize("model", [mlp, Halved])
def test_losses_of_another_type(model: Callable[[], nn.Module], toy_data: Data) -> None:
    found = loss_change.loss_change(Context(model(), toy_data.train, seeded(0)))
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert any(value.any() for value in found.values())
