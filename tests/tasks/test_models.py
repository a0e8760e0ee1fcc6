import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import Conv, fault, mlp

from tune_prune.common.entrypoints import FACTORY
from tune_prune.pruning.masks import prunable
from tune_prune.tasks import models
from tune_prune.tasks.models import to_device
from tune_prune.tasks.splits import Data, as_float

SIZES = {
    "lenet5": {"1": 150, "4": 14_400, "8": 288_000, "10": 10_080, "12": 840},
    "lenet_300_100": {"2": 235_200, "4": 30_000, "6": 1_000},
    "lenet5_caffe": {"1": 500, "3": 25_000, "6": 400_000, "8": 5_000},
}
TOTALS = {"lenet5": 313_470, "lenet_300_100": 266_200, "lenet5_caffe": 430_500}


@pytest.mark.parametrize("name", SIZES)
def test_built_in_models(name: str) -> None:
    model = models.build(name)
    sizes = {label: weight.numel() for label, weight in prunable(model).items()}
    assert sizes == SIZES[name]
    assert sum(sizes.values()) == TOTALS[name]
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_tanh_after_the_pooling_is_tanh_before_it() -> None:
    torch.manual_seed(0)
    ours = models.build("lenet5")
    layers = list(copy.deepcopy(ours))
    for pool, tanh in ((1, 2), (4, 5)):
        layers[pool], layers[tanh] = layers[tanh], layers[pool]
    original, inputs, labels = nn.Sequential(*layers), torch.rand(64, 1, 28, 28), torch.arange(64) % 10
    for model in (ours, original):
        F.cross_entropy(model(inputs), labels).backward()
    assert torch.allclose(ours(inputs), original(inputs), atol=1e-6)
    for one, other in zip(ours.parameters(), original.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_every_build_is_fresh() -> None:
    one, other = models.build("lenet_300_100"), models.build("lenet_300_100")
    assert not torch.equal(one[1].weight, other[1].weight)


def test_a_users_own_model() -> None:
    assert isinstance(models.build("toys:Conv"), Conv)
    assert [type(m) for m in models.build("toys:mlp")] == [type(m) for m in mlp()]


def test_unknown_name() -> None:
    names = ", ".join(models.models)
    said = f"unknown model 'lenet6'; did you mean lenet5? known: {names}, or {FACTORY}"
    assert fault(lambda: models.build("lenet6")) == said


@pytest.mark.parametrize(("address", "kind"), [("builtins:dict", "dict"), ("toys:images", "Data")])
def test_a_factory_of_something_else(address: str, kind: str) -> None:
    assert fault(lambda: models.build(address)) == (
        f"model {address!r} returned {kind}; a factory returns an nn.Module"
    )


def test_a_model_of_torchvision() -> None:
    model = models.build("torchvision:resnet18(num_classes=7)")
    assert list(prunable(model))[:2] == ["conv1", "layer1.0.conv1"]
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert "torchvision.models has no 'resnet19'; nearest callables: resnet1" in fault(
        lambda: models.build("torchvision:resnet19")
    )


def test_a_factory_that_is_not_there() -> None:
    assert "toys has no 'mlpp'; nearest callables: mlp" in fault(lambda: models.build("toys:mlpp"))


class Own(nn.Sequential):
    """A chain whose constructor takes no parts, so that no slice of it can be made."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 2), nn.Tanh())


class Other(Own):
    """No chain: its forward pass is another."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def test_chains() -> None:
    assert [type(part) for part in models.sequential_parts(Own())] == [nn.Linear, nn.Tanh]
    assert models.sequential_parts(Other()) == models.sequential_parts(nn.Linear(2, 2)) == []


def test_pretrained_weights_are_the_packages_and_for_built_in_models_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    for name in ("lenet5", "mine"):
        (tmp_path / f"{name}.safetensors").touch()
    assert models.pretrained_path("lenet5") == tmp_path / "lenet5.safetensors"
    assert models.pretrained_path("lenet_300_100") is None
    assert models.pretrained_path("mine") is None
    assert models.pretrained_path("toys:mlp") is None


def test_to_device_gives_channels_last_and_the_same_model(toy_model: nn.Module, toy_data: Data) -> None:
    before = toy_model.eval()(as_float(toy_data.validation.inputs))
    model = to_device(toy_model, torch.device("cpu"))
    for weight in prunable(model).values():
        assert weight.is_contiguous(memory_format=torch.channels_last) or weight.dim() == 2
    assert torch.allclose(model(as_float(toy_data.validation.inputs)), before, atol=1e-5)


def test_to_device_takes_every_convolution() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv2d(1, 2, 3), nn.Conv3d(1, 2, 3))
    assert to_device(model, torch.device("cpu")) is model
