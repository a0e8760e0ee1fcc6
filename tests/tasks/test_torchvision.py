from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import fault

from tune_prune.hpo import space_reader
from tune_prune.hpo.parameters import Range
from tune_prune.pruning import masks
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.models import build

FAKE = "torchvision:FakeData(size=50, image_size=(3, 8, 8), num_classes=4)"


def test_a_data_set_without_test_images_is_split_in_three() -> None:
    said: list[str] = []
    data = load_data(FAKE, said.append)
    assert said == [f"{FAKE}: a tenth of the images is held out for validation, and another for testing"]
    parts = [data.train, data.validation, data.load_test()]
    assert [len(part.labels) for part in parts] == [40, 5, 5]
    assert all(part.inputs.dtype == torch.uint8 and part.inputs.shape[1:] == (3, 8, 8) for part in parts)
    images = {image.numpy().tobytes() for part in parts for image in part.inputs}
    assert len(images) == 50  # none is in two of them
    again = load_data(FAKE)
    assert all(torch.equal(a, b) for a, b in zip(data.validation, again.validation, strict=True))


def test_one_with_test_images_of_its_own(tmp_path: Path) -> None:
    """USPS has the smallest files: one of text for each part."""
    import bz2

    for file, n in (("usps.bz2", 30), ("usps.t.bz2", 7)):
        lines = [f"{i % 10 + 1} " + " ".join(f"{k}:{-1 + i / 30:.3f}" for k in range(1, 257)) for i in range(n)]
        (tmp_path / file).write_bytes(bz2.compress("\n".join(lines).encode()))
    said: list[str] = []
    data = load_data(f"torchvision:USPS(root={str(tmp_path)!r}, download=False)", said.append)
    assert [len(part.labels) for part in (data.train, data.validation, data.load_test())] == [27, 3, 7]
    assert said[0].endswith("a tenth of the training images is held out for validation")


def folder(root: Path, sides: list[int]) -> str:
    for i, side in enumerate(sides):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((side, side + 2, 3), i, dtype=np.uint8)).save(path)
    return f"torchvision:ImageFolder(root={str(root)!r}"


def test_a_folder_of_images_is_made_of_one_size(tmp_path: Path) -> None:
    data = load_data(folder(tmp_path, [8, 9, 10, 11]) + ", resize=6)")
    assert data.train.inputs.shape == (2, 3, 6, 6)
    assert set(data.train.labels.tolist()) <= {0, 1}


def test_images_of_several_sizes(tmp_path: Path) -> None:
    said = fault(lambda: load_data(folder(tmp_path, [8, 9, 10]) + ")"))
    assert "cannot be loaded (RuntimeError: stack expects each tensor to be equal size" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision:MNIST2", "torchvision has no such data set; it has "),
        ("torchvision:wrap_dataset_for_transforms_v2", "torchvision has no such data set"),
        ("torchvision:FakeData(sise=3)", "cannot be loaded (TypeError: "),
        ("torchvision:ImageFolder(root='not/there')", "cannot be loaded (FileNotFoundError: "),
        ("torchvision:CIFAR10(root='not/there', download=False)", "it is looked for in 'not/there'"),
        ("torchvision:FakeData(size=1)", "1 images are too few to hold some out"),
    ],
)
def test_what_is_wrong(name: str, said: str) -> None:
    assert said in fault(lambda: load_data(name))


def test_a_deep_network_needs_few_parameters() -> None:
    resnet50 = "torchvision:resnet50()"
    text = f"""
        task = {{model = "{resnet50}", data = "{FAKE}"}}
        [space]
        exclude = ["conv1"]
        [space.ratio]
        "layer1.*" = {{low = 0.3, high = 0.95, group = "erk"}}
        "layer2.*" = {{low = 0.3, high = 0.95, group = "erk"}}
        "layer3.*" = {{low = 0.3, high = 0.95, group = "sensitivity"}}
        "layer4.*" = {{low = 0.3, high = 0.95, group = "sensitivity"}}
        "fc" = {{low = 0.3, high = 0.95}}
    """
    params = space_reader.parse(text, "deep", "deep.toml").parameters_for(masks.shapes(build(resnet50)))
    assert sum(name.startswith("ratio/") for name in params) == 53
    assert sum(isinstance(domain, Range) for domain in params.values()) == 5
