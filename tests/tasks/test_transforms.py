from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models
from toys import fault

from tune_prune.tasks import in_memory
from tune_prune.tasks.transforms import load_transform

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8))


class Darker:
    def __init__(self, by: int = 2) -> None:
        self.by = by

    def __call__(self, image: Any) -> Any:
        return torch.from_numpy(np.array(image)) / self.by


def as_array(image: Any) -> Any:
    return np.asarray(image)


@pytest.mark.parametrize("name", ["DEFAULT", "IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V1"])
@pytest.mark.parametrize("module", ["torchvision", "torchvision.models"])
def test_the_preprocessing_of_a_models_weights(name: str, module: str) -> None:
    found = load_transform("weights", f"{module}:resnet50(weights={name!r})")
    assert found is not None
    expected = models.ResNet50_Weights[name.rpartition(".")[2]].transforms()
    assert torch.equal(found(IMAGE), expected(IMAGE))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("torchvision:resnet18()", "model 'torchvision:resnet18()' names no pretrained weights"),
        ("mine:resnet18(weights='DEFAULT')", "names no pretrained weights"),
        ("lenet5", "names no pretrained weights; name some: torchvision:resnet18(weights='DEFAULT'), timm:"),
        ("torchvision:resnet18(weights='BEST')", "resnet18 has the weights IMAGENET1K_V1"),
        ("timm:resnet18()", "names no pretrained weights"),
        ("timm:resnet18(pretrained=True, pretrained_cfg='none')", "timm has no such weights"),
        ("torchvision:nosuchnet(weights='DEFAULT')", "torchvision has no weights of 'nosuchnet'"),
    ],
)
def test_models_without_weights(model: str, said: str) -> None:
    assert said in fault(lambda: load_transform("weights", model))


@pytest.mark.parametrize("tag", ["", ", pretrained_cfg='a1_in1k'"])
def test_the_preprocessing_of_timms_weights(tag: str) -> None:
    found = load_transform("weights", f"timm:resnet18(pretrained=True{tag})")
    assert found is not None
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    gray = Image.new("RGB", (300, 280), (51, 51, 51))
    made = found(gray)
    assert made.shape == (3, 224, 224)
    assert torch.allclose(made.mean((1, 2)), (0.2 - mean) / std, atol=1e-4)


def test_a_function_is_the_transform_and_a_class_makes_it() -> None:
    assert load_transform(None, "lenet5") is None
    assert load_transform(f"{__name__}:as_array", "lenet5") is as_array
    for arguments, by in ("", 2), ("(by=5)", 5):
        made = load_transform(f"{__name__}:Darker{arguments}", "lenet5")
        assert torch.equal(made(IMAGE), Darker(by)(IMAGE))
    kept = Darker(3)
    assert load_transform(in_memory.keep_function(kept), "lenet5") is kept
