"""Splits reach a worker with their structure and types, without a copy; arrays in files without their bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray import cloudpickle
from ray.util import deregister_serializer
from tasks_of_users import rmse
from torch import Tensor
from torch.utils.data import Dataset

from tune_prune.distributed.shared_splits import SharedSplit, send_places_of_mapped_arrays
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import iterate_tensors
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Items, Rows
from tune_prune.tasks.splits import Split

SQUARED = TaskSettings(loss="tasks_of_users:mean_squared", metric=f"{rmse.__module__}:rmse", augment="flip")
N = 10
ROWS = {
    "a pair": (torch.randn(N, 3), torch.randn(N, 1)),
    "a mapping": {"input_ids": torch.arange(4 * N).view(N, 4), "labels": torch.arange(N) % 2},
    "several inputs": ((torch.randn(N, 3).half(), torch.ones(N, 2, dtype=torch.bool)), torch.arange(N)),
}


def batch_split(rows: Any) -> BatchSplit:
    return BatchSplit(Rows(rows), make_objective(SQUARED), "mine:data, training", scale=256.0)


@pytest.mark.parametrize("structure", ROWS)
def test_rows_come_back_as_they_were(structure: str) -> None:
    split = batch_split(ROWS[structure])
    shared = SharedSplit.share(split)
    assert shared is not None
    assert shared.nbytes == sum(tensor.nbytes for tensor in iterate_tensors(ROWS[structure]))
    again = cloudpickle.loads(cloudpickle.dumps(shared)).open(SQUARED, training=True)
    assert isinstance(again, BatchSplit)
    assert (again.name, again.scale) == (split.name, 256.0)
    assert again.augment is not None
    assert again.fingerprint() == split.fingerprint()
    assert shared.open(SQUARED, training=False).augment is None


def test_they_are_not_copied() -> None:
    inputs, _ = ROWS["a pair"]
    shared = SharedSplit.share(batch_split(ROWS["a pair"]))
    assert shared is not None
    assert shared.open(SQUARED, training=True).source.tensors[0].data_ptr() == inputs.data_ptr()
    pairs = SharedSplit.share(Split(inputs, torch.arange(N)))
    assert pairs is not None
    again = pairs.open(TaskSettings(), training=True)
    assert isinstance(again, Split)
    assert again.inputs.data_ptr() == inputs.data_ptr()


def test_code_that_writes_to_a_batch_changes_nothing_that_others_read() -> None:
    split = batch_split({"x": torch.ones(N, 3)})
    for batch in split.batches(4):
        batch["x"].zero_()
    for batch in split.epoch(4, torch.Generator()):
        batch["x"].zero_()
    assert all(bool((batch["x"] == 1).all()) for batch in split.batches(4))


class Numbers(Dataset[Tensor]):
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(index)


@pytest.mark.parametrize(
    "source",
    [Items(Numbers()), Rows((torch.ones(N, 2), torch.ones(N)), mapped=True), Rows({"x": torch.ones(N).bfloat16()})],
    ids=["a data set", "rows in a file", "a type that NumPy lacks"],
)
def test_anything_else_is_not_shared(source: Any) -> None:
    assert SharedSplit.share(BatchSplit(source, make_objective(SQUARED))) is None


@pytest.fixture
def _by_place() -> Iterator[None]:
    send_places_of_mapped_arrays()
    yield
    deregister_serializer(np.memmap)


@pytest.mark.usefixtures("_by_place")
def test_of_an_array_in_a_file_the_place_is_sent(tmp_path: Path) -> None:
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(5000, 8))
    rows[:] = np.arange(40_000).reshape(5000, 8)
    rows.flush()
    sent = cloudpickle.dumps({"train": (rows[100:], np.arange(4900))}, protocol=5)
    assert len(sent) < 100_000
    inputs, _ = cloudpickle.loads(sent)["train"]
    assert np.array_equal(inputs, rows[100:])
