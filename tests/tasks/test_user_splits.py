"""What a user's factory may return as a split: arrays, data sets, streams and batches, and what is read of them."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tasks_of_users import mean_squared
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from toys import fault, seeded

from tune_prune.tasks import caching, user_splits
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.random_states import seed_generators, seeded_generators
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Items, Stream
from tune_prune.tasks.splits import Data, Split

ADDRESS = f"{__name__}:user_data_set"
SQUARED = TaskSettings(loss="tasks_of_users:mean_squared", metric="tasks_of_users:rmse", better="lower")
answer: object = None


def user_data_set() -> object:
    return answer


def load(monkeypatch: pytest.MonkeyPatch, *splits: object, said: list[str] | None = None, **settings: Any) -> Data:
    """Loads these splits as a user's; the last one stands for those that are missing."""
    monkeypatch.setattr(sys.modules[__name__], "answer", (*splits, splits[-1], splits[-1])[:3])
    return load_data(ADDRESS, [].append if said is None else said.append, **settings)


def first(split: Any) -> Any:
    return next(iter(split.batches(4)))


# NumPy arrays


def test_arrays_are_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = np.random.default_rng(0).random((6, 2)), np.arange(6, dtype=np.uint16)
    split = load(monkeypatch, (inputs, labels)).train
    assert isinstance(split, Split)
    assert torch.equal(split.inputs, torch.tensor(inputs, dtype=torch.float32))
    assert split.labels.tolist() == list(range(6))


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_labels_may_be_any_integers(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    labels = np.arange(6).astype(kind)
    assert load(monkeypatch, (np.zeros((6, 2)), labels)).train.labels.tolist() == list(range(6))
    several = load(monkeypatch, ((np.zeros((6, 2)), np.ones((6, 3))), labels)).train
    assert isinstance(several, BatchSplit)
    (one, two), found = first(several)
    assert (one.dtype, two.dtype, found.dtype) == (torch.float32, torch.float32, torch.int64)


@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "int64"])
def test_token_ids_stay_integers(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    words, labels = np.arange(24).reshape(6, 4).astype(kind), np.arange(6) % 2
    model = nn.Sequential(nn.Embedding(24, 5), nn.Flatten(), nn.Linear(20, 2))
    for split in (words, labels), [(row, int(label)) for row, label in zip(words, labels, strict=True)]:
        loaded = load(monkeypatch, split).train
        inputs = first(loaded)[0].int()
        assert inputs.tolist() == words[:4].tolist()
        wrong = (model(torch.from_numpy(words.astype("int64"))).argmax(1) != torch.from_numpy(labels)).float().mean()
        assert evaluate(model, loaded).metric == pytest.approx(100 * float(wrong))
    mapping = load(monkeypatch, {"input": words, "labels": labels}).train
    assert evaluate(model, mapping).metric == pytest.approx(100 * float(wrong))


def test_a_class_for_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(6, 3, 4, 4, generator=seeded(0))
    labels = torch.randint(2, (6, 4, 4), generator=seeded(1), dtype=torch.int32)
    split = load(monkeypatch, (images, labels)).train
    assert isinstance(split, BatchSplit)
    model = nn.Conv2d(3, 2, 1)
    wrong = (model(images).argmax(1) != labels).float().mean()
    assert evaluate(model, split).metric == pytest.approx(100 * float(wrong), abs=1e-4)


def test_rows_that_do_not_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    said = fault(lambda: load(monkeypatch, {"a": np.zeros((3, 2)), "labels": np.zeros(4, dtype=int)}))
    assert "of the training split must have a row for each sample; it has [3, 2], [4]" in said
    assert "has no samples" in fault(lambda: load(monkeypatch, {"a": np.zeros((0, 2)), "labels": np.zeros(0)}))


def test_built_in_models_divide_bytes_by_256_for_any_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.full((4, 1, 28, 28), 128, dtype=torch.uint8), torch.zeros(4, 10)
    for model, expected in ("lenet5", 0.5), ("toys:mlp", 128 / 255):
        split = load(monkeypatch, pixels, settings=SQUARED, model=model).train
        assert first(split)[0].unique().tolist() == [pytest.approx(expected)]


# Arrays in mapped files


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Rows in a file that is too large for memory, and their classes."""
    monkeypatch.setattr(user_splits, "MEMORY_LIMIT", 1000)
    rows = np.memmap(tmp_path / "rows", np.float64, "w+", shape=(40, 8))
    rows[:] = np.arange(320).reshape(40, 8)
    rows.flush()
    return np.memmap(tmp_path / "rows", np.float64, "r", shape=(40, 8)), np.arange(40) % 4


def test_mapped_arrays_stay_in_their_file(
    monkeypatch: pytest.MonkeyPatch, mapped: tuple[np.ndarray, np.ndarray]
) -> None:
    rows, labels = mapped
    split = load(monkeypatch, (rows, labels)).train
    assert isinstance(split, BatchSplit)
    assert split.source.tensors[0].data_ptr() == rows.ctypes.data
    inputs, classes = first(split)
    assert inputs.dtype == torch.float32
    assert inputs.tolist() == rows[:4].tolist()
    assert classes.tolist() == [0, 1, 2, 3]
    drawn, _ = next(split.epoch(4, seeded(0)))
    assert all(int(row[0]) % 8 == 0 and row.tolist() == rows[int(row[0]) // 8].tolist() for row in drawn)


def test_of_mapped_arrays_the_first_samples_are_hashed(
    monkeypatch: pytest.MonkeyPatch, mapped: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    rows, labels = mapped
    before = load(monkeypatch, (rows, labels)).train.fingerprint()
    changed = np.memmap(tmp_path / "rows", np.float64, "r+", shape=(40, 8))
    changed[39] = -1
    assert load(monkeypatch, (rows, labels)).train.fingerprint() == before
    changed[0] = -1
    assert load(monkeypatch, (rows, labels)).train.fingerprint() != before


def test_tensors_in_files_are_mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(user_splits, "MEMORY_LIMIT", 1000)
    rows = torch.from_file(str(tmp_path / "t"), shared=True, size=3000, dtype=torch.uint8).view(30, 100)
    split = load(monkeypatch, (rows, torch.arange(30))).train
    assert isinstance(split, BatchSplit)
    assert split.source.mapped
    in_memory = load(monkeypatch, (rows.clone(), torch.arange(30))).train
    assert isinstance(in_memory, Split)


# Data sets


class Noisy(Dataset[tuple[Tensor, int]]):
    """Ten samples of one number, which may draw from a generator; notes what is read."""

    def __init__(self, draw: Any = lambda: 0.0, count: int = 40) -> None:
        self.draw, self.count, self.read = draw, count, list[int]()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.read.append(index)
        return torch.tensor([index + float(self.draw())]), index % 4


def test_a_data_set_that_is_always_the_same_is_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    data = Noisy()
    split = load(monkeypatch, data, said=said).train
    assert isinstance(split, Split)
    assert split.inputs.flatten().tolist() == list(range(40))
    assert f"{ADDRESS}: training samples are kept in memory, 0.0 MiB" in said
    data.read.clear()
    list(split.batches(8))
    assert data.read == []


def test_one_that_is_too_large_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    data = Noisy(count=10**9)
    loaded = load(monkeypatch, data, Noisy(), Noisy(), said=said)
    assert isinstance(loaded.train, BatchSplit)
    assert len(data.read) == caching.FIRST
    assert f"{ADDRESS}: training samples would take 3.7 GiB, and are read anew in every epoch" in said
    assert isinstance(loaded.validation, BatchSplit)  # both are of one kind


DRAWS = {"torch": lambda: torch.rand(()), "python": random.random, "numpy": np.random.rand}


@pytest.mark.parametrize("generator", DRAWS)
def test_random_samples_are_drawn_anew_in_every_epoch(monkeypatch: pytest.MonkeyPatch, generator: str) -> None:
    said = list[str]()
    split = load(monkeypatch, Noisy(DRAWS[generator]), said=said).train
    assert isinstance(split.source, Items)
    assert f"{ADDRESS}: training samples are drawn at random, and are read anew in every epoch" in said

    def epoch(seed: int) -> list[float]:
        with seeded_generators(seed):
            return sorted(float(row) for inputs, _ in split.epoch(8, seeded(0)) for row in inputs)

    assert epoch(1) == epoch(1)
    assert not set(epoch(1)) & set(epoch(2))
    everything = [torch.cat([inputs for inputs, _ in split.batches(8)]) for _ in range(2)]
    assert torch.equal(*everything)  # models are compared on the same samples


@pytest.mark.parametrize("generator", DRAWS)
def test_the_callers_random_states_go_on(monkeypatch: pytest.MonkeyPatch, generator: str) -> None:
    seed_generators(5)
    expected = [float(DRAWS[generator]()) for _ in range(3)]
    seed_generators(5)
    found = [float(DRAWS[generator]())]
    split = load(monkeypatch, Noisy(DRAWS[generator])).train
    assert found + [float(DRAWS[generator]()) for _ in split.batches(20)] == expected


def test_data_sets_of_other_tasks_are_read_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    train = load(monkeypatch, TensorDataset(torch.rand(6, 3), torch.rand(6, 1)), settings=SQUARED).train
    assert isinstance(train.source, Items)
    assert train.objective.loss_function is mean_squared


def test_a_test_split_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    test = Noisy()
    loaded = load(monkeypatch, Noisy(), Noisy(), test)
    assert test.read == []
    assert loaded.load_test().count == 40


def test_inputs_of_several_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(torch.zeros(3 if at == 30 else 2), 0) for at in range(40)]
    said = fault(lambda: load(monkeypatch, pairs))
    assert "of equal shapes; training input 30 is [3], and the first is [2]" in said


def test_a_users_data_set_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    said = fault(lambda: load(monkeypatch, Noisy(lambda: 1 / 0)))
    assert f"data '{ADDRESS}, training' fails at test_user_splits.py:" in said
    assert "ZeroDivisionError" in said


# Streams and batches


class Lines(IterableDataset[tuple[Tensor, int]]):
    """Samples without a length; notes how many are open."""

    def __init__(self, count: int = 20) -> None:
        self.count = count

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return ((torch.tensor([float(at)]), at % 4) for at in range(self.count))


class Counted(Lines):
    """Samples with a length, as a data set of samples by index has one."""

    def __len__(self) -> int:
        return self.count


def test_a_stream_with_a_length_is_no_data_set_of_samples_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    split = load(monkeypatch, Counted(), said=said).train
    assert isinstance(split.source, Stream)
    assert (split.count, said) == (20, [])
    assert first(split)[0].flatten().tolist() == [0, 1, 2, 3]


def test_a_stream_is_counted_once_and_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    split = load(monkeypatch, Lines(), said=said).train
    assert said[0] == f"data {ADDRESS!r}: the training split was read once to count its samples: 20"
    assert (split.count, split.steps(8)) == (20, 2)
    assert torch.cat([inputs for inputs, _ in split.batches(8)]).flatten().tolist() == list(range(20))
    assert [len(labels) for _, labels in split.epoch(8, seeded(0))] == [8, 8]


def test_a_loader_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    split = load(monkeypatch, DataLoader(Lines(), batch_size=8)).train
    assert (split.count, split.steps(3)) == (20, 3)


@pytest.mark.parametrize(("drop_last", "expected"), [(False, (20, 3)), (True, (16, 2))])
def test_a_loader_is_not_read_to_be_counted(
    monkeypatch: pytest.MonkeyPatch, drop_last: bool, expected: tuple[int, int]
) -> None:
    data = Noisy(count=20)
    split = load(monkeypatch, DataLoader(data, batch_size=8, drop_last=drop_last)).train
    assert (split.count, split.steps(1)) == expected
    assert data.read == []


class Once:
    """Begins where it ended."""

    def __init__(self) -> None:
        self.batches = iter([(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))] * 2)

    def __iter__(self) -> Iterator[Any]:
        return (batch for batch in self.batches)


def test_what_cannot_be_iterated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    said = fault(lambda: load(monkeypatch, Once()))
    assert said.startswith(f"data {ADDRESS!r}: the training split is empty when it is iterated again")
    said = fault(lambda: load(monkeypatch, (batch for batch in Once())))
    assert said.startswith(f"data {ADDRESS!r}: the training split can be iterated only once")


class Batches:
    """Batches of arrays, of which one may be different."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def test_a_batch_of_another_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = np.zeros((4, 1)), np.zeros(4, dtype=np.int32)
    split = load(monkeypatch, Batches(pair, pair, {"x": pair[0]})).train
    said = fault(lambda: list(split.batches()))
    assert said == (
        f"data '{ADDRESS}, training': batch 3 is {{x: tensor}}, and the first is (tensor, tensor); "
        "all batches must have one structure"
    )
    same = load(monkeypatch, Batches(pair, list(pair))).train
    assert len(list(same.batches())) == 2


def test_splits_of_several_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = torch.arange(20.0)[:, None], torch.arange(20) % 4
    loaded = load(monkeypatch, DataLoader(TensorDataset(*pair), batch_size=8), pair, Noisy())
    parts = loaded.train, loaded.validation, loaded.load_test()
    assert [type(part) for part in parts] == [BatchSplit] * 3
    assert [first(part)[1].tolist() for part in parts[1:]] == [[0, 1, 2, 3]] * 2
    loaded.train.join(loaded.validation)
