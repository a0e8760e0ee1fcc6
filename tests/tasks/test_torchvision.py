from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import fault, seeded

from tune_prune.common.import_path import NO_CODE
from tune_prune.hpo import space_reader
from tune_prune.hpo.parameters import Range
from tune_prune.pruning import masks
from tune_prune.pruning.criteria import find_criterion
from tune_prune.tasks import torchvision_allowlist
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.models import build
from tune_prune.tasks.random_states import seeded_generators
from tune_prune.tasks.settings import TaskSettings

FAKE = "torchvision:FakeData(size=50, image_size=(3, 8, 8), num_classes=4)"


def test_a_data_set_without_test_images_is_split_in_three() -> None:
    said: list[str] = []
    data = load_data(FAKE, said.append)
    assert said == [
        f"{FAKE}: all samples are kept in memory, 0.0 MiB",
        f"{FAKE}: a tenth of the images is held out for validation, and another for testing",
    ]
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
    assert any(line.endswith("a tenth of the training images is held out for validation") for line in said)


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
    assert said.endswith("is [3, 10, 12], and the first is [3, 8, 10]; give a side, as resize=64 in its name, or a "
                         "transform that makes images of one size")  # fmt: skip


def folders(root: Path, **sides: list[int]) -> str:
    """Folders of images by their names, in each the classes a and b; returns the name of the data set."""
    for name, found in sides.items():
        (root / name).mkdir()
        folder(root / name, found)
    return f"torchvision:ImageFolder(root={str(root)!r})"


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_folders_for_training_validation_and_testing_are_splits(tmp_path: Path, validation: str) -> None:
    said = list[str]()
    name = folders(tmp_path, train=[8] * 20, test=[8] * 6, **{validation: [8] * 4})
    data = load_data(name, said.append)
    assert [part.count for part in (data.train, data.validation, data.load_test())] == [20, 4, 6]
    assert sorted(data.train.labels.tolist()) == [0] * 10 + [1] * 10
    assert not any("held out" in line for line in said)


def test_a_folder_that_is_missing_is_held_out(tmp_path: Path) -> None:
    said = list[str]()
    data = load_data(folders(tmp_path, train=[8] * 20, val=[8] * 4), said.append)
    assert [part.count for part in (data.train, data.validation, data.load_test())] == [18, 4, 2]
    assert any(line.endswith("a tenth of the training images is held out as test images") for line in said)
    (tmp_path / "val").rename(tmp_path / "test")
    data = load_data(f"torchvision:ImageFolder(root={str(tmp_path)!r})")
    assert [part.count for part in (data.train, data.validation, data.load_test())] == [18, 2, 4]


def test_folders_of_other_names_are_classes(tmp_path: Path) -> None:
    data = load_data(folders(tmp_path, train=[8] * 10, cats=[8] * 10))
    assert data.train.count == 16
    assert set(data.train.labels.tolist()) == {0, 1}


def test_folders_with_other_classes(tmp_path: Path) -> None:
    name = folders(tmp_path, train=[8] * 10, val=[8] * 4)
    (tmp_path / "val" / "a").rename(tmp_path / "val" / "c")
    said = fault(lambda: load_data(name))
    assert said.endswith(f"{tmp_path}/val has the classes b, c, and {tmp_path}/train a, b")


def test_the_preprocessing_of_weights_makes_images_of_one_size(tmp_path: Path) -> None:
    from torchvision.models import ResNet18_Weights

    settings = TaskSettings(transform="weights")
    model = "torchvision:resnet18(weights='DEFAULT')"
    name = folders(tmp_path, train=[240, 300], val=[250, 260])
    data = load_data(name, settings=settings, model=model)
    with Image.open(tmp_path / "val" / "a" / "0.png") as image:
        expected = ResNet18_Weights.DEFAULT.transforms()(image.convert("RGB"))
    assert torch.equal(next(iter(data.validation.batches(2)))[0][0], expected)
    said = fault(lambda: load_data(f"{name[:-1]}, resize=6)", settings=settings, model=model))
    assert said.endswith("resize and a transform; leave resize out, and let the transform resize")
    assert "transform is for torchvision's data" in fault(lambda: load_data("mnist", settings=settings, model=model))


class Shift:
    """Adds a random number."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) + torch.rand(())


def test_random_transforms_are_drawn_anew_in_every_epoch(tmp_path: Path) -> None:
    settings = TaskSettings(transform=f"{__name__}:Shift")
    data = load_data(folder(tmp_path, [8] * 20) + ")", settings=settings)
    parts = [data.train, data.validation, data.load_test()]
    assert [part.count for part in parts] == [16, 2, 2]

    def epoch(seed: int) -> list[float]:
        with seeded_generators(seed):
            return [float(one.mean()) for inputs, _ in data.train.epoch(4, seeded(0)) for one in inputs]

    first, second = epoch(1), epoch(2)
    assert [int(mean) for mean in first] == [int(mean) for mean in second]  # the same images
    assert not set(first) & set(second)
    images = [int(one.mean()) for part in parts for inputs, _ in part.batches(8) for one in inputs]
    assert sorted(images) == list(range(20))  # none is in two of the splits


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


# Under --no-code


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses code, and fails where something would be downloaded or unpickled."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("downloaded or unpickled")

    monkeypatch.setenv(NO_CODE, "1")
    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("pickle.load", fail)
    monkeypatch.setattr("pickle.loads", fail)
    monkeypatch.setattr("torch.load", fail)


@pytest.mark.usefixtures("no_code")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision:resnet18(weights='DEFAULT')", "weights would be downloaded and unpickled, which --no-code"),
        ("torchvision:resnet18(pretrained=True)", "pretrained would be downloaded and unpickled"),
        ("torchvision.models:resnet18(weights='DEFAULT')", "weights would be downloaded and unpickled"),
        (
            "torchvision:get_model(name='resnet18', weights='DEFAULT')",
            "torchvision has no such network; it has alexnet",
        ),
        ("torchvision:get_weight(name='ResNet18_Weights.DEFAULT')", "torchvision has no such network"),
        ("torchvision.models.detection:ssd300_vgg16(weights_backbone='DEFAULT')", "which --no-code refuses"),
        ("torchvision.datasets.utils:download_url(url='http://x', root='.')", "which --no-code refuses"),
    ],
)
def test_networks_that_no_code_refuses(name: str, said: str) -> None:
    assert said in fault(lambda: build(name))
    address = name.replace("torchvision:", "torchvision.models:")
    assert "which --no-code refuses" in fault(lambda: load_data(address))
    assert "which --no-code refuses" in fault(lambda: find_criterion(name))


@pytest.mark.usefixtures("no_code")
def test_networks_that_no_code_allows() -> None:
    for name in ("torchvision:resnet18(num_classes=4, weights=None)", "torchvision.models:squeezenet1_1"):
        build(name)


@pytest.mark.usefixtures("no_code")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision:LSUNClass(root='.')", "--no-code refuses this data set; it takes Caltech256, "),
        ("torchvision:CIFAR10", "--no-code refuses this data set"),
        ("torchvision:MNIST(root='data')", "--no-code refuses this data set"),
        ("torchvision:DatasetFolder(root='.', loader='x')", "--no-code refuses this data set"),
        ("torchvision:ImageFolder(root='.', loader='x')", "--no-code refuses loader; it takes root, "),
        ("torchvision:USPS(download=True)", "--no-code downloads nothing; leave out download"),
        ("torchvision:USPS(root='not/there')", "it is looked for in 'not/there'"),
        ("torchvision:SEMEION(root='not/there')", "it is looked for in 'not/there'"),  # it downloads by default
    ],
)
def test_data_that_no_code_refuses(name: str, said: str) -> None:
    assert said in fault(lambda: load_data(name))


@pytest.mark.usefixtures("no_code")
def test_data_that_no_code_allows(tmp_path: Path) -> None:
    assert len(load_data(FAKE).train.labels) == 40
    assert len(load_data(folder(tmp_path, [8] * 10) + ")").train.labels) == 8


def test_what_no_code_allows_is_there() -> None:
    from torchvision import datasets

    assert [name for name in torchvision_allowlist.DATASETS if not hasattr(datasets, name)] == []
