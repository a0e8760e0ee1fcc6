import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import Conv, mlp

from tune_prune.pruning import iterative, masks, sensitivity
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.sensitivity import SensitivityJob, make_jobs, measure_retrained, measure_without_retraining
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Data
from tune_prune.tasks.task import Task

CPU = torch.device("cpu")


def task_of(name: str, model: nn.Module, data: Data) -> Task:
    teacher, error = data.train.scores(model).clone(), evaluate(model, data.validation)
    return Task(name, copy.deepcopy(model.state_dict()), data.train, data.validation, teacher, error)


def parts() -> nn.Sequential:
    """Layers at the start, inside a part and at the end."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.ReLU()), nn.Linear(8, 4)
    )


@pytest.mark.parametrize(("name", "factory"), [("toys:mlp", mlp), ("toys:Conv", Conv), (f"{__name__}:parts", parts)])
@pytest.mark.parametrize("pruner", ["mag", "taylor1"])
def test_it_is_what_pruning_the_layer_alone_measures(name: str, factory: type, pruner: str, toy_data: Data) -> None:
    model = factory()
    task = task_of(name, model, toy_data)
    jobs = make_jobs(model, [], [pruner], (0.0, 0.5, 0.9), steps=0, lr=0.0, seed=3)
    results = list(measure_without_retraining(task, jobs, CPU))
    assert [result.job for result in results] == jobs
    for result in results:
        job = result.job
        plan = Plan({job.layer: job.ratio}, {job.layer: pruner})
        state = iterative.initial_state(task.dense_model(CPU))
        point = next(iterative.prune(state, plan, task.train, task.validation, 3))
        assert (result.kept, result.total) == masks.kept_counts(state.masks)[job.layer]
        assert result.val_metric == point.metric
        assert result.val_loss == pytest.approx(point.loss, abs=1e-5)
        retrained = measure_retrained(task, job, CPU)
        assert replace(retrained, seconds=0, val_loss=0) == replace(result, seconds=0, val_loss=0)


def test_retraining_helps(toy_data: Data) -> None:
    model = mlp()
    task = task_of("toys:mlp", model, toy_data)
    before = measure_retrained(task, SensitivityJob("2", "mag", 0.5, 0, 0.1), CPU)
    after = measure_retrained(task, SensitivityJob("2", "mag", 0.5, 200, 0.1), CPU)
    assert after.val_metric < before.val_metric - 10
    assert after.kept == before.kept == 512


def test_all_layers_where_none_are_named() -> None:
    jobs = make_jobs(Conv(), [], ["mag", "random"], sensitivity.GRID, 0, 0.0, 0)
    assert len(jobs) == len(set(jobs)) == 2 * len(prunable(Conv())) * 20
    assert {job.layer for job in make_jobs(Conv(), ["head"], ["mag"], [0.5], 0, 0.0, 0)} == {"head"}
