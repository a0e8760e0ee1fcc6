"""A training says how far it is, whatever its loop is."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn
from toys import images, mlp, seeded

from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Rows
from tune_prune.tasks.splits import AnySplit
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe
from tune_prune.training.progress import on_step


def in_memory() -> AnySplit:
    return images().train


def in_batches() -> AnySplit:
    split = images().train
    return BatchSplit(Rows((split.inputs, split.labels)), split.objective, "train, training", scale=split.scale)


def by_the_user() -> AnySplit:
    split = in_batches()
    assert isinstance(split, BatchSplit)
    objective = make_objective(TaskSettings(fit=f"{__name__}:own_loop"))
    return BatchSplit(split.source, objective, split.name, scale=split.scale)


def own_loop(model: nn.Module, batches: Iterable[Any], steps: int, lr: float, after_step: Callable[[], None]) -> None:
    for _ in range(steps):
        after_step()


@pytest.mark.parametrize("make", [in_memory, in_batches, by_the_user])
def test_every_step_is_told(make: Callable[[], AnySplit]) -> None:
    told = list[tuple[int, int]]()
    with on_step(lambda done, steps: told.append((done, steps))):
        fit(mlp(), make(), Recipe(7, 0.01, batch_size=80), seeded(0))
    assert [*dict.fromkeys(told)] == [(done, 7) for done in range(1, 8)]


def test_nobody_is_told_after_the_block() -> None:
    told, inner = list[int](), list[int]()
    with on_step(lambda done, steps: told.append(done)):
        with on_step(lambda done, steps: inner.append(done)):
            fit(mlp(), in_memory(), Recipe(2, 0.01), seeded(0))
        fit(mlp(), in_memory(), Recipe(1, 0.01), seeded(0))
    fit(mlp(), in_memory(), Recipe(3, 0.01), seeded(0))
    assert (told, inner) == ([1], [1, 2])


def test_telling_changes_no_weight() -> None:
    found = []
    for told in (False, True):
        torch.manual_seed(0)
        model = mlp()
        if told:
            with on_step(lambda done, steps: None):
                fit(model, in_memory(), Recipe(5, 0.1), seeded(0))
        else:
            fit(model, in_memory(), Recipe(5, 0.1), seeded(0))
        found.append(model.state_dict())
    assert all(torch.equal(*both) for both in zip(*(weights.values() for weights in found), strict=True))
