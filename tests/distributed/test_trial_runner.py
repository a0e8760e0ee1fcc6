import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deadlines import WAIT
from torch import nn
from toys import Conv, task_of

from tune_prune.distributed import trial_runner
from tune_prune.distributed.trainable import PruneTrainable
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.export import sparse_format
from tune_prune.hpo.warm_start import WarmStart
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.granularity import MIXTURES
from tune_prune.pruning.masks import count_removed, prunable
from tune_prune.results import records
from tune_prune.results.constraints import COSTS, LATENCY, Constraints
from tune_prune.results.records import TrialRecord
from tune_prune.tasks.batches import Batch
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import to_device
from tune_prune.tasks.task import Task

PARAMS = {"ratio/features.4": 0.9, "ratio/head": 0.5, "pruner": "taylor1", "rounds": 3, "steps": 2, "final_steps": 3}


@pytest.fixture(scope="module")
def task() -> Task:
    """The convolutional toy, untrained: 70 % validation error or so."""
    torch.manual_seed(0)
    return task_of(Conv(), "toys:Conv")


@pytest.fixture
def worker_data(task: Task, tmp_path: Path) -> WorkerData:
    return WorkerData.create(task, tmp_path, limits=Constraints(100.0), device="cpu", threads=1)


def config(trial: int, params: Mapping[str, Any] = PARAMS, **more: Any) -> dict[str, Any]:
    """What the searcher suggests."""
    return {"trial": trial, "seed": 7 + trial, "params": dict(params), **more}


def worker(worker_data: WorkerData, first: Mapping[str, Any]) -> PruneTrainable:
    """A worker as Ray sets it up, without Ray: `tune.with_parameters` hands `worker_data` to `setup`."""
    made = PruneTrainable.__new__(PruneTrainable)
    made.setup(dict(first), worker_data)
    return made


def run(made: PruneTrainable) -> TrialRecord:
    """All steps of a trial; its record."""
    while not (said := made.step())["done"]:
        pass
    return read(made, said["trial"])


def read(made: PruneTrainable, trial: int) -> TrialRecord:
    return records.read(records.record_path(made._runner._worker_data.run_dir, trial))


def timeless(record: TrialRecord) -> TrialRecord:
    """The record without times."""
    return replace(record, seconds=0, cpu_seconds=0, points=[replace(point, seconds=0) for point in record.points])


# Sharing


def test_what_is_shared_comes_back_without_a_copy(task: Task, worker_data: WorkerData) -> None:
    again = worker_data.make_task()
    for ours, theirs in [
        (task.train.inputs, again.train.inputs),
        (task.train.labels, again.train.labels),
        (task.validation.inputs, again.validation.inputs),
        (task.validation.labels, again.validation.labels),
        (task.teacher, again.teacher),
    ]:
        assert np.shares_memory(ours.numpy(), theirs.numpy())
    assert (again.model, again.dense) == (task.model, task.dense)
    assert all(torch.equal(value, again.weights[key]) for key, value in task.weights.items())
    assert torch.equal(again.train.labels, task.train.labels)


def test_read_only_memory_is_no_reason_to_copy_or_to_warn(worker_data: WorkerData) -> None:
    assert worker_data.splits is not None
    assert worker_data.teacher is not None
    inputs, labels = worker_data.splits[0].rows
    for array in (inputs, labels, *worker_data.splits[1].rows, worker_data.teacher):
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = worker_data.make_task()
    assert np.shares_memory(inputs, again.train.inputs.numpy())


def test_bytes(worker_data: WorkerData) -> None:
    images_, labels, teacher = 360 * 64, 360 * 8, 240 * 4 * 4
    weights = 4 * (36 + 4 + 2 * 4 + 2 * 4 + 288 + 8 + 128 + 4) + 8  # with the batch norm's, and its counter
    assert worker_data.nbytes == images_ + labels + teacher + weights


# A trial


def test_a_record_after_every_round(worker_data: WorkerData) -> None:
    made = worker(worker_data, config(4))
    for number in (1, 2, 3):
        said = made.step()
        record = read(made, 4)
        measured = {name: getattr(record.last, name) for name in ("compression", "factor", "val_loss")}
        measured["val_error"] = record.last.val_metric
        assert said == {"trial": 4, "rounds": number, "done": number == 3} | measured
        assert record.state == ("complete" if number == 3 else "running")
        assert [point.round for point in record.points] == list(range(1, number + 1))
    assert record.params.to_columns() == PARAMS
    assert record.pruners == {"features.4": "taylor1", "head": "taylor1"}
    assert record.parent is None
    assert record.last.compression == (round(0.9 * 288) + 64) / 452
    assert record.last.ratios == {"features.4": 0.9, "head": 0.5}
    assert sum(point.seconds for point in record.points) <= record.seconds


def test_what_a_worker_took_to_start_is_its_first_trials(worker_data: WorkerData) -> None:
    before = time.process_time()
    made = worker(worker_data, config(4))
    assert run(made).cpu_seconds > before  # of this process, since it began
    began = time.process_time()
    made.reset_config(config(5))
    assert run(made).cpu_seconds < time.process_time() - began


def test_the_files_hold_what_was_measured(task: Task, worker_data: WorkerData) -> None:
    record = run(worker(worker_data, config(4)))
    for point in record.points:
        assert point.checkpoint == f"rounds/4-{point.round}.safetensors"
        path = worker_data.run_dir / point.checkpoint
        model, mask = checkpoint.restore(checkpoint.read(path), str(path))
        assert masks.compression(mask) == point.compression
        measured = evaluate(to_device(model, torch.device("cpu")), task.validation)
        assert measured == (point.val_metric, point.val_loss)


def test_infeasible_rounds_before_the_last_keep_no_file(worker_data: WorkerData) -> None:
    made = worker(replace(worker_data, limits=Constraints(-1.0)), config(4))
    record = run(made)
    assert [point.feasible for point in record.points] == [False] * 3
    assert [point.checkpoint for point in record.points] == [None, None, "rounds/4-3.safetensors"]
    assert [path.name for path in (worker_data.run_dir / "rounds").iterdir()] == ["4-3.safetensors"]


def test_the_limit_itself_is_feasible(worker_data: WorkerData) -> None:
    error = run(worker(worker_data, config(4))).last.val_metric
    for trial, limit, feasible in ((5, error, True), (6, error - 1e-6, False)):
        assert run(worker(replace(worker_data, limits=Constraints(limit)), config(trial))).last.feasible == feasible


def test_a_trial_that_takes_too_long_ends_its_process(worker_data: WorkerData, monkeypatch: pytest.MonkeyPatch) -> None:
    exited = threading.Event()
    monkeypatch.setattr(trial_runner.os, "_exit", lambda code: exited.set())
    worker(replace(worker_data, timeout=0.05), config(4))
    assert exited.wait(WAIT)
    record = records.read(records.record_path(worker_data.run_dir, 4))
    assert (record.state, record.reason) == ("failed", "it took longer than --trial-timeout, 0.05 s")
    again = worker(replace(worker_data, timeout=1000.0), config(4))  # as Ray does after a process has died
    assert again.step() == {"trial": 4, "rounds": 0, "done": True}
    assert records.read(records.record_path(worker_data.run_dir, 4)) == record


def test_a_trial_that_takes_too_long_where_nothing_can_be_written(
    worker_data: WorkerData, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(trial_runner.os, "_exit", codes.append)
    monkeypatch.setattr(trial_runner.records, "write", full)
    with pytest.raises(OSError, match="space left"):  # which nobody sees: the process is gone
        worker(replace(worker_data, timeout=1000.0), config(4))._runner._give_up()
    assert codes == [1]


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device", "run")


@pytest.mark.parametrize("where", ["checkpoint", "records"])
def test_a_run_directory_that_is_full_is_no_failure_of_a_trial_s(
    worker_data: WorkerData, monkeypatch: pytest.MonkeyPatch, where: str, tmp_path: Path
) -> None:
    made = worker(worker_data, config(4))
    made.step()
    before = read(made, 4)
    with monkeypatch.context() as patched:
        patched.setattr(getattr(trial_runner, where), "write", full)
        said = made.step()
        assert said["done"]
        assert said["io_error"] == "[Errno 28] No space left on device: 'run'"
        assert read(made, 4) == before
    elsewhere = replace(worker_data, run_dir=tmp_path / "elsewhere")
    assert timeless(run(worker(worker_data, config(4)))) == timeless(run(worker(elsewhere, config(4))))


def test_a_failure_that_cannot_be_written(worker_data: WorkerData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_runner.records, "write", full)
    assert worker(worker_data, config(5, {**PARAMS, "pruner": "test_trial_runner:faulty"})).step()["io_error"]


def test_a_trial_that_ends_in_time(worker_data: WorkerData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_runner.os, "_exit", lambda code: pytest.fail("it was in time"))
    made = worker(replace(worker_data, timeout=1000.0), config(4))
    assert run(made).state == "complete"
    assert made._runner._watchdog._timer is None


def faulty(weight: torch.Tensor) -> torch.Tensor:
    """A user's pruner with a fault."""
    raise ZeroDivisionError("in a user's\npruner")


def not_finite(weight: torch.Tensor) -> torch.Tensor:
    return weight / 0


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"pruner": "test_trial_runner:faulty"}, "ZeroDivisionError: in a user's pruner at test_trial_runner.py:"),
        (
            {"pruner": "test_trial_runner:not_finite"},
            "ScoreError: pruner test_trial_runner:not_finite gave scores that",
        ),
        ({"lr": 1e30, "final_steps": 9}, "DivergedError: the training loss became "),
    ],
)
def test_what_a_trial_raises_is_its_own_failure(worker_data: WorkerData, params: dict[str, Any], reason: str) -> None:
    made = worker(worker_data, config(0, PARAMS | {"rounds": 2, "steps": 0} | params))
    record = run(made)
    assert record.state == "failed"
    assert record.reason.startswith(reason)
    assert "\n" not in record.reason
    assert [point.round for point in record.points] == ([1] if "lr" in params else [])
    assert made.reset_config(config(1))  # the worker goes on
    assert run(made).state == "complete"


# Another trial in the same worker


def test_nothing_is_left_over_from_the_trial_before(worker_data: WorkerData) -> None:
    single = run(worker(worker_data, config(5)))
    made = worker(worker_data, config(3, PARAMS | {"pruner": "mag", "lr": 0.1}))
    made.step()
    assert made.reset_config(config(4, PARAMS | {"ratio/head": 0.9}))
    run(made)
    assert made.reset_config(config(5))
    assert timeless(run(made)) == timeless(single)
    assert read(made, 3).state == "running"


# Warm starts and refinements


def test_a_trial_starts_bit_for_bit_where_its_parent_ended(worker_data: WorkerData) -> None:
    parent = run(worker(worker_data, config(0)))
    saved = checkpoint.read(worker_data.run_dir / str(parent.last.checkpoint))
    refine = config(
        1, PARAMS | {"rounds": 1, "final_steps": 0}, refines=0, start=WarmStart.from_point(parent.trial, parent.last)
    )
    made = worker(worker_data, refine)
    made._runner._rounds = made._runner._start_rounds()
    for _ in range(2):  # before its one round, and after it, which without training changes nothing
        for key, value in made._runner._state.model.state_dict().items():
            assert torch.equal(value, saved.weights[key])
        for label, kept in saved.masks.items():
            assert torch.equal(made._runner._state.masks[label] != 0, kept)
        made.step()
    record = read(made, 1)
    assert (record.parent, record.parent_round, record.refines, record.kind) == (0, 3, 0, "refine")
    assert (record.last.compression, record.last.val_metric) == (parent.last.compression, parent.last.val_metric)


def test_a_trial_that_begins_at_a_round_leaves_out_the_rounds_that_are_behind_it(worker_data: WorkerData) -> None:
    parent = run(worker(worker_data, config(0)))
    second = parent.points[1]
    farther = PARAMS | {"ratio/features.4": 0.95, "ratio/head": 0.6}
    made = worker(worker_data, config(1, farther, start=WarmStart.from_point(parent.trial, second)))
    before = checkpoint.read(worker_data.run_dir / str(second.checkpoint))
    made._runner._rounds = made._runner._start_rounds()
    for key, value in made._runner._state.model.state_dict().items():
        assert torch.equal(value, before.weights[key])
    record = run(made)
    assert [point.round for point in record.points] == [2, 3]  # the first asks for less than is removed already
    assert (record.parent, record.parent_round, record.kind) == (0, 2, "explore")
    after = checkpoint.read(worker_data.run_dir / str(record.last.checkpoint))
    assert all(not (kept & ~before.masks[label]).any() for label, kept in after.masks.items())  # masks only shrink
    for point in record.points:  # the ratios of each point remove just what is removed
        removed = {label: count_removed(ratio, before.masks[label].numel()) for label, ratio in point.ratios.items()}
        assert sum(removed.values()) == round(point.compression * sum(mask.numel() for mask in after.masks.values()))


def test_a_refinement_trains_what_its_parent_kept(worker_data: WorkerData) -> None:
    parent = run(worker(worker_data, config(0)))
    longer = PARAMS | {"rounds": 1, "final_steps": 60, "lr": 0.05}
    made = worker(worker_data, config(1, longer, refines=0, start=WarmStart.from_point(parent.trial, parent.last)))
    record = run(made)
    assert record.last.compression == parent.last.compression
    assert record.last.val_loss < parent.last.val_loss
    saved = checkpoint.read(worker_data.run_dir / str(parent.last.checkpoint))
    for label, weight in prunable(made._runner._state.model).items():
        assert not weight[~saved.masks[label]].any()


def test_costs_are_counted_of_every_round(worker_data: WorkerData) -> None:
    layers = {"features.0": (36, 64), "features.4": (288, 16), "head": (128, 1)}  # weights, and uses of each
    record = run(worker(worker_data, config(4)))
    for point in record.points:
        assert set(point.costs) == set(COSTS) - set(LATENCY)
        left = {label: n - round(point.ratios.get(label, 0.0) * n) for label, (n, _) in layers.items()}
        macs = sum(left[label] * times for label, (_, times) in layers.items())
        assert point.costs["macs"] == macs / sum(n * times for n, times in layers.values())
    path = worker_data.run_dir / str(record.last.checkpoint)
    model, mask = checkpoint.restore(checkpoint.read(path), str(path))
    assert record.last.costs["bytes"] == len(sparse_format.dumps("toys:mlp", model, mask))
    over = run(worker(replace(worker_data, limits=Constraints(100.0, {"macs": 0.01})), config(5))).last
    assert (over.feasible, over.within) == (False, False)


def test_a_trial_out_of_memory_has_not_failed_yet(worker_data: WorkerData, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: WorkerData) -> Task:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(WorkerData, "make_task", full)
        made = worker(worker_data, config(0))
        why = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
        assert made.step() == {"trial": 0, "rounds": 0, "done": True, "out_of_memory": why}
    record = read(made, 0)
    assert (record.state, record.reason) == ("running", why)
    made.reset_config(config(0))  # and now there is some
    assert timeless(run(made)) == timeless(run(worker(worker_data, config(0))))


MIXTURE = {name: value for name, value in PARAMS.items() if not name.startswith("ratio/")} | {
    "ratio/features.4": 0.5, "ratio/weights/features.0": 0.4, "ratio/weights/features.4": 0.8,
}  # fmt: skip


def test_groups_are_found_once_in_the_dense_model(worker_data: WorkerData, monkeypatch: pytest.MonkeyPatch) -> None:
    find, asked = iterative.find_groups, list[bool]()

    def counting(model: nn.Module, inputs: Batch, granularity: str) -> list[Group]:
        asked.append(all(bool(weight.all()) for weight in prunable(model).values()))
        return find(model, inputs, granularity)

    monkeypatch.setattr(iterative, "find_groups", counting)
    params = MIXTURE | {"granularity": "channel+weight"}
    made = worker(worker_data, config(0, params))
    parent = run(made)
    start = WarmStart.from_point(parent.trial, parent.last)
    made.reset_config(config(1, params | {"ratio/features.4": 0.75}, start=start))
    assert run(made).state == "complete"
    assert asked == [True]


@pytest.mark.parametrize("limit", [0.0, 100.0])  # no round keeps it, and all do
@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize(
    "params", [PARAMS, *(MIXTURE | {"granularity": name} for name in MIXTURES)], ids=["weight", *MIXTURES]
)
def test_a_trial_that_was_cut_off_goes_on_after_its_last_round(
    task: Task, tmp_path: Path, limit: float, cut: int, params: Mapping[str, Any]
) -> None:
    whole, torn = (WorkerData.create(task, tmp_path / name, Constraints(limit), "cpu", 1) for name in ("whole", "torn"))
    expected = run(worker(whole, config(4, params)))
    first = worker(torn, config(4, params))
    for _ in range(cut):
        first.step()
    before = read(first, 4)
    again = worker(torn, config(4, params))  # another process
    taken_up = again.step()
    assert taken_up["rounds"] == cut  # told once more, since the first process may not have judged it
    assert (taken_up["val_error"], taken_up["done"], read(again, 4)) == (before.last.val_metric, False, before)
    said = again.step()
    assert said["rounds"] == cut + 1  # none is measured twice
    record = read(again, 4) if said["done"] else run(again)
    assert timeless(record) == timeless(expected)
    assert record.points[:cut] == before.points
    assert record.seconds >= before.seconds
    for name in ("whole", "torn"):
        assert not [*(tmp_path / name / "rounds").glob("*.partial")]
    ends = [(tmp_path / name / str(expected.last.checkpoint)).read_bytes() for name in ("whole", "torn")]
    assert ends[0] == ends[1]


def test_a_trial_whose_last_round_is_lost_begins_again(task: Task, tmp_path: Path) -> None:
    worker_data = WorkerData.create(task, tmp_path, Constraints(0.0), "cpu", 1)
    first = worker(worker_data, config(4))
    first.step()
    (partial,) = (tmp_path / "rounds").glob("*.partial")
    partial.write_bytes(b"noise")
    again = worker(worker_data, config(4))
    assert again.step()["rounds"] == 1
    assert [point.round for point in run(again).points] == [1, 2, 3]


def test_the_partial_file_of_a_stopped_trial_is_deleted(task: Task, tmp_path: Path) -> None:
    made = worker(WorkerData.create(task, tmp_path, Constraints(0.0), "cpu", 1), config(4))
    made.step()
    assert len([*(tmp_path / "rounds").glob("*.partial")]) == 1
    made.reset_config(config(5))
    assert not [*(tmp_path / "rounds").glob("*.partial")]
