"""Training in two processes, of which this one is rank 0, over gloo: a step is what it is in one process."""

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from deadlines import WAIT
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toys import Conv, Tied, fault, images, mlp, seeded

from tune_prune.pruning import masks
from tune_prune.tasks.augment import crop_flip
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.parts import Part
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Items, Loader, Rows
from tune_prune.tasks.splits import AnySplit, Split
from tune_prune.training import data_parallel
from tune_prune.training.data_parallel import check_shared_out, is_lost_rank
from tune_prune.training.loop import DivergedError, fit
from tune_prune.training.optim import Recipe

RECIPE = Recipe(9, 0.1, batch_size=60, weight_decay=0.01)
MANY = replace(RECIPE, batch_size=61, accumulate=2, clip=0.1, l1=0.01)
Function = Callable[..., Any]


def serve(connection: Connection, port: int, part: Part) -> None:
    """Rank 1: calls the functions that it is sent."""
    torch.set_num_threads(1)
    data_parallel.join(data_parallel.find_store(data_parallel.LOOPBACK, port), part, own_gpu=False)
    while (received := connection.recv()) is not None:
        function, arguments = received
        try:
            connection.send(function(part, *arguments))
        except BaseException as error:
            connection.send(repr(error))
            raise


@pytest.fixture(scope="module")
def both() -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Calls a function in both processes, with their parts and further arguments; returns what both return."""
    store, port = data_parallel.open_store(data_parallel.LOOPBACK)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, port, Part(1, 2)), daemon=True)
    process.start()
    theirs.close()
    data_parallel.join(store, Part(0, 2), own_gpu=False)

    def call(function: Function, *arguments: Any) -> tuple[Any, Any]:
        ours.send((function, arguments))
        mine = function(Part(0, 2), *arguments)
        assert ours.poll(WAIT)
        return mine, ours.recv()

    yield call
    process.kill()
    data_parallel.leave()


def splits(**settings: Any) -> dict[str, AnySplit]:
    """The toys' training images, read in every way."""
    objective, train = make_objective(TaskSettings(**settings)), images().train
    inputs, labels = train.inputs / 255, train.labels
    data_set = TensorDataset(inputs, labels)
    loader: DataLoader[Any] = DataLoader(data_set, 59, shuffle=True)  # 59 + 59 + 59 + 59 + 4
    sources = {
        "rows": Rows((inputs, labels)), "items": Items(data_set),
        "loader": Loader.read(loader, "toys"), "single": Loader.read(DataLoader(data_set, 239), "toys"),
    }  # fmt: skip
    found: dict[str, AnySplit] = {name: BatchSplit(source, objective, "toys") for name, source in sources.items()}
    return found | {"memory": Split(train.inputs, train.labels, objective=objective)}


def train(
    part: Part | None,
    kind: str,
    make: Callable[[], nn.Module] = mlp,
    recipe: Recipe = RECIPE,
    settings: dict[str, Any] | None = None,
    augment: Function | None = None,
) -> dict[str, Tensor]:
    """Trains a toy with masks, in one process or in a part; its state, its masks and the loss."""
    torch.manual_seed(0)
    model, teacher = make(), make()
    split = splits(**(settings or {}))[kind]
    if augment is not None and isinstance(split, BatchSplit):
        split = replace(split, augment=augment)
    kept = {label: (weight > -0.05).float() for label, weight in masks.prunable(model).items()}
    masks.apply(model, kept)
    known = None if not recipe.distill else split.scores(teacher) if isinstance(split, Split) else teacher
    loss = fit(model, split, recipe, seeded(3), masks=masks.pairs(model, kept), teacher=known, part=part)
    for label, weight in masks.prunable(model).items():
        assert not weight[kept[label] == 0].any()
    return {key: value.clone() for key, value in model.state_dict().items()} | {"loss": torch.tensor(loss)}


def same(first: dict[str, Tensor], second: dict[str, Tensor], atol: float = 0.0) -> bool:
    return all(torch.allclose(value, second[key], rtol=0, atol=atol) for key, value in first.items())


CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in ("memory", "rows", "items", "loader", "single")),
    *((kind, {"recipe": MANY}) for kind in ("memory", "rows")),
    *((kind, {"recipe": replace(RECIPE, distill=0.5)}) for kind in ("memory", "rows")),
    ("memory", {"make": Tied}),
    ("memory", {"recipe": replace(RECIPE, augment=True)}),
    ("rows", {"settings": {"optimizer": "torch.optim:AdamW(weight_decay=0.1)"}, "recipe": replace(RECIPE, lr=0.01)}),
    ("rows", {"augment": crop_flip}),
    ("loader", {"augment": crop_flip}),
]


@pytest.mark.parametrize(("kind", "more"), CASES)
def test_two_processes_train_as_one_does(both: Function, kind: str, more: dict[str, Any]) -> None:
    arguments = [more.get(key, default) for key, default in (("make", mlp), ("recipe", RECIPE), ("settings", None))]
    alone = train(None, kind, *arguments, more.get("augment"))
    mine, other = both(train, kind, *arguments, more.get("augment"))
    assert same(mine, other)
    assert same(mine, alone, atol=2e-5)


def test_bfloat16(both: Function) -> None:
    settings = {"precision": "bf16"}
    mine, other = both(train, "memory", mlp, RECIPE, settings)
    assert same(mine, other)
    assert same(mine, train(None, "memory", mlp, RECIPE, settings), atol=0.02)  # bfloat16 has eight bits


def test_running_statistics_of_batch_norms_are_of_rank_0s_parts(both: Function) -> None:
    mine, other = both(train, "memory", Conv)
    statistics = {key for key in mine if ".1.running" in key or "num_batches" in key}
    assert same({key: mine[key] for key in mine.keys() - statistics}, other)
    alone = train(None, "memory", Conv)
    for key in statistics:  # of half as many images
        assert torch.allclose(mine[key], alone[key], rtol=0.2)
    assert not torch.equal(mine["features.1.running_mean"], alone["features.1.running_mean"])


class Dropping(nn.Sequential):
    """The toy with dropout."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


def draw(part: Part) -> Tensor:
    """What dropout lets through in the first step, of ones."""
    found: list[Tensor] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        found.append(model[1](torch.ones(30)))
        return F.cross_entropy(model(batch[0]), batch[1])

    split = splits()["loader"]
    assert isinstance(split, BatchSplit)
    split = replace(split, objective=replace(split.objective, loss_function=loss))
    fit(Dropping(), split, replace(RECIPE, steps=6), seeded(3), part=part)
    return found[0]


def test_random_layers_draw_for_each_process_alone_though_all_draw_the_same_batches(both: Function) -> None:
    mine, other = both(draw)
    assert not torch.equal(mine, other)
    mine, other = both(train, "loader", Dropping)
    assert same(mine, other)


class Drawing(nn.Module):
    """A head that only some batches use, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.rare, self.never = mlp(), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.net(inputs)
        return self.rare(scores) if bool(inputs.mean() > 0.5) else scores


def test_parameters_without_a_gradient_in_one_part_or_in_none(both: Function) -> None:
    mine, other = both(train, "rows", Drawing)
    assert same(mine, other)
    torch.manual_seed(0)
    before = Drawing().state_dict()
    kept = before["never.weight"] * (before["never.weight"] > -0.05)
    assert torch.equal(mine["never.weight"], kept)  # not even decayed
    assert torch.equal(mine["never.bias"], before["never.bias"])


def diverge(part: Part) -> str:
    with pytest.raises(DivergedError) as raised:
        train(part, "memory", mlp, replace(RECIPE, lr=1e30))
    return str(raised.value)


def test_all_diverge_at_the_same_step(both: Function) -> None:
    mine, other = both(diverge)
    assert mine == other


class Noisy(TensorDataset):
    """Draws from every global generator at each reading."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, label = super().__getitem__(index)
        return inputs + torch.rand(()) + random.random() + np.random.rand(), label


def read(part: Part) -> list[tuple[int, float]]:
    """How many samples each batch of an epoch has for a part, and the mean of the first one's inputs."""
    found = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        found.append((len(batch[0]), float(batch[0].mean())))
        return F.cross_entropy(model(batch[0]), batch[1])

    train_, objective = images().train, replace(make_objective(TaskSettings()), loss_function=loss)
    split = BatchSplit(Items(Noisy(train_.inputs / 255, train_.labels)), objective, "toys")
    fit(mlp(), split, replace(RECIPE, steps=3, batch_size=61), seeded(3), part=part)
    return found


def test_of_a_data_set_each_process_reads_its_samples_alone(both: Function) -> None:
    mine, other = both(read)
    assert [count for count, _ in mine] == [30] * 3
    assert [count for count, _ in other] == [31] * 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fit": "tasks_of_users:rows"}, "with fit 'tasks_of_users:rows': a training loop of your own"),
        ({}, ": a batch, (tensor, tensor, tensor), cannot be taken apart into samples"),
    ],
)
def test_what_several_processes_cannot_train(given: dict[str, str], said: str) -> None:
    batches = [(torch.rand(2, 3), torch.rand(2, 1), torch.rand(7)) for _ in range(2)]
    split = BatchSplit(Loader.read(batches, "toys"), make_objective(TaskSettings(**given)), "toys")
    assert fault(lambda: check_shared_out(split, 3)).startswith(f"--workers-per-trial 3{' ' if given else ''}{said}")
    check_shared_out(split, 1)
    for one in splits().values():
        check_shared_out(one, 3)


def die(part: Part) -> None:
    """Rank 1 dies in the middle of a training; rank 0 notices."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if part.rank == 1:
            os._exit(1)
        return F.cross_entropy(model(batch[0]), batch[1])

    split = splits()["rows"]
    assert isinstance(split, BatchSplit)
    split = replace(split, objective=replace(split.objective, loss_function=loss))
    with pytest.raises(RuntimeError) as raised:
        fit(mlp(), split, RECIPE, seeded(3), part=part)
    assert is_lost_rank(raised.value)
    assert not is_lost_rank(RuntimeError("the size of tensor a must match the size of tensor b"))


def test_the_death_of_a_process_ends_the_training_of_the_others(both: Function) -> None:  # the last: it needs no other
    with pytest.raises(EOFError):  # there is nobody to answer
        both(die)
