from pathlib import Path

import pytest
from ray import cloudpickle
from toys import Mixed, Mixer, task_of

from tune_prune.distributed.worker_data import WorkerData
from tune_prune.pruning import layers, masks
from tune_prune.results.constraints import NO_CONSTRAINTS


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
