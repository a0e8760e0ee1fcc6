from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Conv, ended, task_of

from tune_prune.common.seeding import derive_seed
from tune_prune.distributed.trial_runner import TrialRunner
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo.trials import TrialConfig
from tune_prune.hpo.warm_start import Stage, WarmStart, list_stages, retrace
from tune_prune.pruning import checkpoint, masks, statistics_cache
from tune_prune.pruning.iterative import State
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results import records
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import TrialRecord
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.task import Task

SEED = 3
CPU = torch.device("cpu")
PARAMS = {"ratio/features.4": 0.8, "ratio/head": 0.3, "pruner": "taylor1", "rounds": 3, "steps": 4, "final_steps": 4}
FARTHER = PARAMS | {"ratio/features.4": 0.95, "ratio/head": 0.4, "pruner": "taylor2", "distill": 0.7}
LONGER = FARTHER | {"rounds": 1, "final_steps": 20, "lr": 0.05}


@pytest.fixture(scope="module")
def task() -> Task:
    """The convolutional toy: its batch normalisation has a state besides the weights."""
    torch.manual_seed(0)
    return task_of(Conv(), "toys:Conv")


@pytest.fixture
def cached(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CachedStatistics:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return statistics_cache.measure_dense(["gradient", "hessian"], task.dense_model(CPU), task.train, 1024)


def run(data: WorkerData, trial: int, params: Mapping[str, Any], start: WarmStart | None = None) -> TrialRecord:
    """A trial as the search runs it."""
    config = TrialConfig(trial, derive_seed(SEED, trial), TrialParams.from_columns(params), start=start)
    runner = TrialRunner(data, config)
    while not runner.run_round().done:
        pass
    return records.read(records.record_path(data.run_dir, trial))


@pytest.fixture
def searched(task: Task, cached: CachedStatistics, tmp_path: Path) -> dict[int, TrialRecord]:
    """A trial, one that starts from its second round, and one that starts from the end of that."""
    data = WorkerData.create(task, tmp_path, limits=Constraints(100.0), device="cpu", threads=1, cached=cached)
    first = run(data, 0, PARAMS)
    second = run(data, 4, FARTHER, WarmStart.from_point(first.trial, first.points[1]))
    third = run(data, 5, LONGER, WarmStart.from_point(second.trial, second.last))
    return {0: first, 4: second, 5: third}


def same(state: State, path: Path) -> bool:
    """Whether weights, batch statistics and masks are those of a file, bit for bit."""
    saved = checkpoint.read(path)
    weights = state.model.state_dict()
    assert weights.keys() == saved.weights.keys()
    equal = all(torch.equal(value, saved.weights[key]) for key, value in weights.items())
    return equal and all(torch.equal(mask != 0, saved.masks[label]) for label, mask in state.masks.items())


def test_the_stages_of_a_trial() -> None:
    first = ended(0, (0.5, 1.0), (0.9, 1.5))
    second = replace(ended(3, (0.5, 1.0), (0.95, 1.5)), parent=0, parent_round=1)
    by_trial = {0: first, 3: second}
    assert list_stages(first, 2, by_trial) == [Stage(0, 2, first.params)]
    assert list_stages(second, 2, by_trial) == [Stage(0, 1, first.params), Stage(3, 2, second.params)]


def test_the_search_s_seed_gives_every_file_of_the_search_again(
    task: Task, cached: CachedStatistics, searched: dict[int, TrialRecord], tmp_path: Path
) -> None:
    tried = 0
    for record in searched.values():
        for point in record.points:
            state = retrace(task, list_stages(record, point.round, searched), SEED, CPU, cached)
            assert same(state, tmp_path / str(point.checkpoint))
            tried += 1
    assert [len(list_stages(record, 1, searched)) for record in searched.values()] == [1, 2, 3]
    assert tried == 6  # the second trial's first round asks for less than is removed already


def test_another_seed_is_another_repetition_of_the_same_compression(
    task: Task, cached: CachedStatistics, searched: dict[int, TrialRecord], tmp_path: Path
) -> None:
    record = searched[5]
    stages = list_stages(record, record.last.round, searched)
    found = [retrace(task, stages, seed, CPU, cached) for seed in (SEED + 1, SEED + 2, SEED + 1)]
    assert not any(same(state, tmp_path / str(record.last.checkpoint)) for state in found)
    one, other, again = (state.model.state_dict()["head.weight"] for state in found)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert {masks.compression(state.masks) for state in found} == {record.last.compression}


def test_what_is_known_of_the_dense_model_is_used(
    task: Task, searched: dict[int, TrialRecord], cached: CachedStatistics
) -> None:
    record = searched[4]
    stages = list_stages(record, record.last.round, searched)
    without = retrace(task, stages, SEED, CPU)
    assert not torch.equal(without.masks["features.4"], retrace(task, stages, SEED, CPU, cached).masks["features.4"])
