import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tasks_of_users import mean_squared
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from toys import fault, seeded

from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.objective import CLASSIFICATION, Objective, make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Items, Loader, Rows
from tune_prune.tasks.splits import Data, Split
from tune_prune.tasks.user_splits import make_data

OWN = make_objective(TaskSettings(loss="tasks_of_users:mean_squared"))
IMAGES, LABELS = torch.rand(6, 2, 3), torch.arange(6) % 2


def made(split: object, objective: Objective = CLASSIFICATION, say: Any = lambda line: None) -> Data:
    return make_data("x:y", (split, split, split), objective, say)


class Drawing(Dataset[tuple[Tensor, int]]):
    """Shifts its images at random, by the generator of the library that is named."""

    def __init__(self, library: str) -> None:
        self._draw = {
            "torch": lambda: torch.rand(()).item(),
            "numpy": lambda: np.random.rand(),
            "random": random.random,
            "none": lambda: 0.5,
        }[library]

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return IMAGES[index] + self._draw(), int(LABELS[index])


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(IMAGES.split(2), LABELS.split(2), strict=True)


@pytest.mark.parametrize("convert", [lambda tensor: tensor, Tensor.numpy])
def test_arrays_are_a_classification_in_memory(convert: Any) -> None:
    train = made((convert(IMAGES), convert(LABELS))).train
    assert isinstance(train, Split)
    assert torch.equal(train.inputs, IMAGES)
    assert torch.equal(train.labels, LABELS)


@pytest.mark.parametrize(
    "split",
    [
        {"input_ids": torch.arange(12).view(6, 2), "labels": LABELS},
        {"input_ids": torch.arange(12).view(6, 2).numpy(), "labels": LABELS.numpy()},
        ((IMAGES, IMAGES[:, 0]), LABELS),
        (IMAGES, torch.zeros(6, 3, dtype=torch.int64)),
    ],
    ids=["mapping", "arrays", "several inputs", "a label a pixel"],
)
def test_other_arrays_are_rows(split: Any) -> None:
    train = made(split).train
    assert isinstance(train, BatchSplit)
    assert isinstance(train.source, Rows)
    assert train.count == 6
    batch = next(train.batches(2))
    assert not (isinstance(batch, dict) and batch["input_ids"].is_floating_point())


def test_arrays_of_other_lengths_are_refused() -> None:
    assert "one row a sample; theirs are [5, 6] rows" in fault(lambda: made((IMAGES, torch.rand(5, 1)), OWN))


@pytest.mark.parametrize("library", ["torch", "numpy", "random"])
def test_what_a_data_set_draws_is_drawn_anew_in_every_epoch(library: str) -> None:
    said: list[str] = []
    train = made(Drawing(library), say=said.append).train
    assert isinstance(train, BatchSplit)
    assert "drawn at random" in said[0]
    first, second = (torch.cat([inputs for inputs, _ in train.batches(3)]) for _ in range(2))
    assert not torch.equal(first, second)


def test_looking_for_draws_leaves_the_generators_alone() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    made(Drawing("torch"))
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


def test_a_data_set_that_draws_nothing_is_kept_in_memory() -> None:
    train = made(Drawing("none")).train
    assert isinstance(train, Split)
    assert torch.equal(train.inputs, IMAGES + 0.5)


def test_a_large_data_set_is_read_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_prune.tasks.user_splits.LARGEST", 100)
    said: list[str] = []
    assert isinstance(made(Drawing("none"), say=said.append).train, BatchSplit)
    assert "in memory it would take" in said[0]


def test_data_sets_of_other_tasks_are_read_in_every_epoch() -> None:
    train = made(TensorDataset(IMAGES, IMAGES[:, :1, 0]), OWN).train
    assert isinstance(train, BatchSplit)
    assert isinstance(train.source, Items)
    assert train.objective.loss_function is mean_squared


@pytest.mark.parametrize(
    "split",
    [DataLoader(TensorDataset(IMAGES, LABELS), 2), Stream(), DataLoader(Stream(), None)],
    ids=["loader", "stream", "loader of a stream"],
)
def test_batches_are_counted_and_read_any_number_of_times(split: Any) -> None:
    train = made(split).train
    assert isinstance(train, BatchSplit)
    assert isinstance(train.source, Loader)
    assert (train.count, train.steps(64)) == (6, 3)
    for _ in range(2):
        assert torch.equal(torch.cat([labels for _, labels in train.epoch(64, seeded(0))]), LABELS)


def test_what_can_be_iterated_once_is_refused() -> None:
    message = "data 'x:y': the training split can be iterated only once"
    assert fault(lambda: made(iter([(IMAGES, LABELS)]))).startswith(message)
