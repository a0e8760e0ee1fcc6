import gzip
import hashlib
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from toys import fault

from tune_prune.tasks import datasets
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.splits import Data, Split, as_float

ADDRESS = f"{__name__}:user_data"
answer: object = None


def user_data() -> object:
    return answer


def pair(n: int = 3) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 2), torch.arange(n)


def answers(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    """Let the user's factory return a value."""
    monkeypatch.setattr(sys.modules[__name__], "answer", value)


@pytest.fixture(scope="module")
def mnist() -> Data:
    return load_data("mnist")


MD5 = dict(re.findall(r"\| (\S+-ubyte) \| ([0-9a-f]{32}) \|", (datasets.MNIST / "README.md").read_text()))


def test_mnist_is_as_published() -> None:
    found = {
        path.stem: hashlib.md5(gzip.decompress(path.read_bytes())).hexdigest() for path in datasets.MNIST.glob("*.gz")
    }
    assert found == MD5
    assert len(MD5) == 4


def test_the_validation_split_is_the_last_10000_of_the_training_file(mnist: Data) -> None:
    raw = gzip.decompress((datasets.MNIST / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((datasets.MNIST / "train-labels-idx1-ubyte.gz").read_bytes())
    assert mnist.validation.inputs.numpy().tobytes() == raw[-10_000 * 784 :]
    assert mnist.validation.labels.tolist() == list(labels[-10_000:])
    assert mnist.train.inputs.numpy().tobytes() == raw[16 : -10_000 * 784]


def test_mnist_splits(mnist: Data) -> None:
    for split, n in ((mnist.train, 50_000), (mnist.validation, 10_000), (mnist.load_test(), 10_000)):
        assert split.inputs.shape == (n, 1, 28, 28)
        assert split.inputs.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(10))


def test_test_images_are_read_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def note(path: Path) -> Tensor:
        read.append(path.name)
        return torch.zeros(60_000, dtype=torch.uint8)

    monkeypatch.setattr(datasets, "_read_idx", note)
    loaded = load_data("mnist")
    assert {name[:5] for name in read} == {"train"}
    loaded.load_test()
    assert read[2:] == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize("header", [b"\x00\x00\x0d\x01\x00\x00\x00\x00", b"\x00\x01\x08\x01\x00\x00\x00\x00"])
def test_another_kind_of_idx_file(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "floats.gz"
    path.write_bytes(gzip.compress(header))
    assert fault(lambda: datasets._read_idx(path)) == f"{path}: not an IDX file of unsigned bytes"


def test_bytes_are_divided_by_255_or_256_and_floats_pass() -> None:
    pixels = torch.tensor([0, 1, 128, 255], dtype=torch.uint8)
    assert as_float(pixels, 256).tolist() == [0, 1 / 256, 0.5, 255 / 256]
    assert as_float(pixels)[3] == 1
    assert load_data("mnist", model="lenet5").train.scale == 256
    assert load_data("mnist", model="toys:mlp").validation.scale == 255
    assert pixels.tolist() == [0, 1, 128, 255]
    floats = torch.tensor([-3.0, 700.0])
    assert as_float(floats) is floats


def test_a_users_own_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    doubles = torch.tensor([[1.5, 2.0]], dtype=torch.float64), torch.tensor([3], dtype=torch.int32)
    pixels = torch.ones(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0.0, 1.0])
    answers(monkeypatch, (doubles, pixels, pair(5)))
    loaded = load_data(ADDRESS)
    assert loaded.train.inputs.dtype == torch.float32
    assert loaded.train.inputs.tolist() == [[1.5, 2.0]]
    assert loaded.train.labels.dtype == loaded.validation.labels.dtype == torch.int64
    assert loaded.validation.inputs.dtype == torch.uint8
    assert len(loaded.load_test().labels) == 5


class Pairs(Dataset[tuple[Tensor, int]]):
    """A user's map-style data set."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._shapes = shapes

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full(self._shapes[index], float(index)), 3 * index


def test_data_sets_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, (Pairs([(2,)] * 4), pair(), Pairs([(2,)])))
    loaded = load_data(ADDRESS)
    assert loaded.train.inputs.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert loaded.train.labels.tolist() == [0, 3, 6, 9]
    assert len(loaded.load_test().labels) == 1


@pytest.mark.parametrize("shapes", [[(2,), (3,)], []])
def test_data_sets_that_cannot_be_stacked(monkeypatch: pytest.MonkeyPatch, shapes: list[tuple[int, ...]]) -> None:
    answers(monkeypatch, (Pairs(shapes), pair(), pair()))
    assert fault(lambda: load_data(ADDRESS)).startswith(f"data {ADDRESS!r}: a data set must hold pairs")


def test_a_users_own_data_object_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data(Split(*pair()), Split(*pair()), lambda: Split(*pair()))
    answers(monkeypatch, data)
    loaded = load_data(ADDRESS)
    assert loaded.name == ADDRESS
    assert loaded.train.inputs is data.train.inputs
    assert loaded.validation.labels is data.validation.labels


def test_test_images_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Split] = []
    answers(monkeypatch, Data(Split(*pair()), Split(*pair()), lambda: made.append(Split(*pair())) or made[-1]))
    loaded = load_data(ADDRESS)
    assert made == []
    assert loaded.load_test().inputs is loaded.load_test().inputs is made[0].inputs
    assert len(made) == 1


@pytest.mark.parametrize("at", [0, 999, 1000, 2499])
@pytest.mark.parametrize(("where", "part"), [(0, "training"), (1, "validation"), (2, "test")])
def test_the_first_input_that_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch, where: int, part: str, at: int
) -> None:
    inputs = torch.zeros(2500, 2, 2)
    inputs[at, 1, 0] = math.nan
    inputs[at:, 0, 1] = math.inf
    wrong = inputs, torch.zeros(2500, dtype=torch.int64)
    answers(monkeypatch, tuple(wrong if where == number else pair() for number in range(3)))
    said = f"data {ADDRESS!r}: {part} input {at} holds NaN or infinity; every number must be finite"
    assert fault(lambda: load_data(ADDRESS).load_test()).startswith(said)


@pytest.mark.parametrize(("value", "shown"), [(1.9, "1.9"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_labels_are_whole(monkeypatch: pytest.MonkeyPatch, value: float, shown: str) -> None:
    said = f"data {ADDRESS!r}: training label 2 is {shown}; labels are the numbers of classes, 0, 1, 2 ..."
    labels = torch.tensor([0.0, 1.0, value, value])
    answers(monkeypatch, ((torch.rand(4, 2), labels), pair(), pair()))
    assert fault(lambda: load_data(ADDRESS)).startswith(said)
    answers(monkeypatch, ([(torch.rand(2), label) for label in labels.tolist()], pair(), pair()))
    assert fault(lambda: load_data(ADDRESS)).startswith(said)
    answers(monkeypatch, ([(torch.rand(2), label) for label in labels], pair(), pair()))
    assert fault(lambda: load_data(ADDRESS)).startswith(said)


@pytest.mark.parametrize("value", [None, pair(), (pair(), pair()), [pair()] * 3, {"train": pair()}])
def test_not_three_splits(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    answers(monkeypatch, value)
    assert fault(lambda: load_data(ADDRESS)).startswith(f"data {ADDRESS!r} must return (train, validation, test)")


@pytest.mark.parametrize(
    "part",
    [
        None,
        torch.rand(3, 2),
        (torch.rand(3, 2),),
        (*pair(), torch.rand(3)),
        (torch.rand(3, 2), [0, 1, 2]),
        ([[0.0], [1.0]], torch.arange(2)),
        (torch.rand(4, 2), torch.arange(3)),
        (torch.rand(0, 2), torch.arange(0)),
        (torch.rand(3, 2), torch.eye(3)),
        (torch.tensor(1.0), torch.tensor(1)),
        (torch.tensor(1.0), torch.arange(1)),
    ],
)
@pytest.mark.parametrize("where", range(3))
def test_a_split_that_is_no_pair(monkeypatch: pytest.MonkeyPatch, part: object, where: int) -> None:
    answers(monkeypatch, tuple(part if i == where else pair() for i in range(3)))
    assert fault(lambda: load_data(ADDRESS)).startswith(f"data {ADDRESS!r}: every split must be a pair of tensors")


def test_an_unknown_name() -> None:
    assert fault(lambda: load_data("cifar99")).startswith("unknown data set 'cifar99'; did you mean torchvision:CIFAR1")
