from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray import cloudpickle
from toys import Mixed, Mixer, mlp, task_of

from tune_prune.distributed.worker_data import WorkerData
from tune_prune.pruning import layers, masks
from tune_prune.results.constraints import NO_CONSTRAINTS
from tune_prune.tasks import in_memory
from tune_prune.tasks.settings import TaskSettings
from tune_prune.training.loop import make_optimizer
from tune_prune.training.optim import Recipe
from tune_prune.training.torch_optimizer import TorchOptimizer


def test_a_worker_knows_the_layers_that_were_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "registered", {})
    layers.register(Mixer, weight="kernel", outputs_axis=1)
    data = WorkerData.create(task_of(Mixed(), "toys:Mixed"), tmp_path, NO_CONSTRAINTS, "cpu", 1)
    assert set(data.uses) == {"mixer", "head"}
    sent = cloudpickle.dumps(data)
    monkeypatch.setattr(layers, "registered", {})  # as in another process
    received = cloudpickle.loads(sent)
    assert "mixer" not in masks.shapes(Mixed())
    received.make_task()
    assert masks.shapes(Mixed())["mixer"] == (64, 16)


def test_a_worker_trains_data_in_memory_as_the_task_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "_kept", {})
    settings = TaskSettings(optimizer=in_memory.keep_function(torch.optim.Adam), precision="bf16")
    task = replace(task_of(mlp(), "toys:mlp"), settings=settings)
    sent = cloudpickle.dumps(WorkerData.create(task, tmp_path, NO_CONSTRAINTS, "cpu", 1))
    monkeypatch.setattr(in_memory, "_kept", {})  # as in another process
    made = cloudpickle.loads(sent).make_task()
    for split in (made.train, made.validation):
        assert split.objective.settings.precision == "bf16"
        assert isinstance(make_optimizer(mlp(), Recipe(1, 0.1), split.objective), TorchOptimizer)
