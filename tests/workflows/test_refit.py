import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Conv, images, task_of

from tune_prune.common.seeding import derive_seed
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.iterative import State, initial_state, prune_once, round_generator
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.plan import Plan
from tune_prune.results.front import Member
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import to_device
from tune_prune.tasks.task import Task
from tune_prune.training.loop import DivergedError, fit
from tune_prune.training.optim import Recipe
from tune_prune.workflows import refit
from tune_prune.workflows.refit import Refit, join_splits, read_refits, refit_front, refit_plan

CPU = torch.device("cpu")
PARAMS = TrialParams({"features.4": 0.8, "head": 0.5}, "mag", training={"rounds": 3, "batch_size": 16, "distill": 0.5})
PLAN = refit_plan(PARAMS, steps=60, lr=0.05)


@pytest.fixture(scope="module")
def task() -> Task:
    """The convolutional toy, trained a little."""
    torch.manual_seed(0)
    model = Conv()
    fit(model, images().train, Recipe(steps=60, lr=0.05), torch.Generator().manual_seed(0))
    return task_of(model, "toys:Conv")


@pytest.fixture
def pruned(task: Task) -> State:
    state = initial_state(task.dense_model(CPU))
    prune_once(state, replace(PLAN, rounds=1), 1, task.train, round_generator(0, 1))
    return state


# One model


def test_the_recipe_is_the_trial_s_but_for_its_length_and_rate() -> None:
    assert refit_plan(PARAMS, 7, 0.3) == Plan(
        {"features.4": 0.8, "head": 0.5}, {"features.4": "mag", "head": "mag"},
        rounds=1, final_steps=7, lr=0.3, batch_size=16, distill=0.5,
    )  # fmt: skip


def test_removed_weights_stay_zero_and_the_others_learn(task: Task, pruned: State) -> None:
    before = {label: weight.detach().clone() for label, weight in prunable(pruned.model).items()}
    kept = {label: mask.clone() for label, mask in pruned.masks.items()}
    loss = evaluate(pruned.model, join_splits(task)).loss
    found = refit.refit(task, pruned, PLAN, seed=1)
    assert found == evaluate(pruned.model, join_splits(task))
    assert found.loss < loss
    for label, weight in prunable(pruned.model).items():
        assert torch.equal(pruned.masks[label], kept[label])
        assert not weight[kept[label] == 0].any()
        moved = (weight != before[label])[kept[label] == 1]
        assert moved.float().mean() > 0.9


def test_it_trains_on_all_but_the_test_images(task: Task) -> None:
    inputs, labels = join_splits(task)
    assert torch.equal(inputs, torch.cat([task.train.inputs, task.validation.inputs]))
    assert torch.equal(labels, torch.cat([task.train.labels, task.validation.labels]))
    assert inputs.dtype == torch.uint8
    floats = replace(task.validation, inputs=task.validation.as_float(task.validation.inputs))
    mixed = join_splits(replace(task, validation=floats)).inputs
    assert torch.equal(mixed, inputs.float() / 255)


def test_the_dense_model_teaches_validation_images_too(
    task: Task, pruned: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(refit.iterative, "retrain", lambda *arguments: calls.append(arguments))
    refit.refit(task, pruned, PLAN, seed=1)
    refit.refit(task, pruned, replace(PLAN, distill=0.0), seed=1)
    split, teacher = calls[0][3], calls[0][5]
    assert torch.allclose(teacher, split.scores(task.dense_model(CPU)), atol=1e-5)
    assert calls[1][5] is None


def test_the_seed_decides(task: Task, pruned: State) -> None:
    first = {key: value.clone() for key, value in pruned.model.state_dict().items()}
    found = []
    for seed in (1, 2, 1):
        pruned.model.load_state_dict(first)
        refit.refit(task, pruned, PLAN, seed)
        found.append(prunable(pruned.model)["head"].detach().clone())
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_what_diverges_is_no_result(task: Task, pruned: State) -> None:
    with pytest.raises(DivergedError):
        refit.refit(task, pruned, replace(PLAN, lr=1e30), seed=1)


# A front


@dataclass
class SerialMap:
    """A `ParallelMap` in this process: one member after the other; it ends after `end` of them."""

    task: Task
    end: float = math.inf
    done: list[str] = field(default_factory=list)

    def __call__(self, work: Any, jobs: Sequence[Refit]) -> Iterator[tuple[Refit, Exception | None]]:
        for job in jobs:
            if len(self.done) >= self.end:
                return
            self.done.append(f"{job.trial}-{job.round}")
            try:
                work(self.task, job, CPU, {})
            except Exception as error:
                yield job, error
            else:
                yield job, None


@pytest.fixture
def members(task: Task, pruned: State, tmp_path: Path) -> list[Member]:
    """Two of one trial, whose files hold the same."""
    found = []
    for id_, round_ in (("001", 1), ("002", 3)):
        file = f"rounds/4-{round_}.safetensors"
        compression = masks.compression(pruned.masks)
        point = PointRecord(round_, compression, 1 / (1 - compression), 1.0, 0.1, True, 1.0, {}, file)
        checkpoint.write(tmp_path / file, task.model, pruned.model, pruned.masks)
        found.append(Member(id_, TrialRecord(4, "complete", PARAMS, {}, [point]), point))
    return found


FILES = {"001": "refits/4-1.safetensors", "002": "refits/4-3.safetensors"}


def refitted(
    run_dir: Path, members: Sequence[Member], parallel_map: SerialMap, steps: int = 60, lr: float = 0.05
) -> tuple[dict[str, str], list[str]]:
    failures = refit_front(run_dir, members, seed=9, steps=steps, lr=lr, parallel_map=parallel_map)
    return read_refits(run_dir, members, seed=9, steps=steps, lr=lr), failures


def test_every_member_is_refitted_from_its_file(task: Task, members: list[Member], tmp_path: Path) -> None:
    assert refitted(tmp_path, members, SerialMap(task)) == (FILES, [])
    for member in members:
        path = tmp_path / FILES[member.id]
        saved = checkpoint.read(path)
        model, kept = checkpoint.restore(saved, str(path))
        assert masks.compression(kept) == member.point.compression
        source = tmp_path / str(member.point.checkpoint)
        unfitted, _ = checkpoint.restore(checkpoint.read(source), str(source))
        assert evaluate(model, join_splits(task)).loss < evaluate(unfitted, join_splits(task)).loss
        again = State(to_device(unfitted, CPU), {label: mask.clone() for label, mask in kept.items()})
        refit.refit(task, again, PLAN, derive_seed(9, -2, 4, member.point.round))
        assert all(torch.equal(value, saved.weights[key]) for key, value in again.model.state_dict().items())


def test_nothing_is_trained_twice(task: Task, members: list[Member], tmp_path: Path) -> None:
    first, second, third = SerialMap(task, end=1), SerialMap(task), SerialMap(task)
    assert refitted(tmp_path, members, first) == ({"001": FILES["001"]}, [])
    assert refitted(tmp_path, members, second) == (FILES, [])
    assert refitted(tmp_path, members, third) == (FILES, [])
    assert (first.done, second.done, third.done) == (["4-1"], ["4-3"], [])


@pytest.mark.parametrize("changed", [{"steps": 61}, {"lr": 0.04}])
def test_another_recipe_is_another_file(
    task: Task, members: list[Member], tmp_path: Path, changed: dict[str, Any]
) -> None:
    refitted(tmp_path, members, SerialMap(task))
    again = SerialMap(task)
    assert refitted(tmp_path, members, again, **changed) == (FILES, [])
    assert again.done == ["4-1", "4-3"]


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_damaged_file_is_written_again(task: Task, members: list[Member], tmp_path: Path, size: int) -> None:
    refitted(tmp_path, members, SerialMap(task))
    path = tmp_path / FILES["002"]
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    again = SerialMap(task)
    assert refitted(tmp_path, members, again) == (FILES, [])
    assert again.done == ["4-3"]
    assert path.read_bytes() == whole


def test_a_failure_is_reported_and_loses_no_other(task: Task, members: list[Member], tmp_path: Path) -> None:
    (tmp_path / str(members[0].point.checkpoint)).unlink()
    files, failures = refitted(tmp_path, members, SerialMap(task))
    assert files == {"002": FILES["002"]}
    assert len(failures) == 1
    assert failures[0].startswith("trial 4, round 1 failed: UserError: ")
    assert not (tmp_path / FILES["001"]).exists()


def test_a_file_of_another_compression_is_no_member(task: Task, members: list[Member], tmp_path: Path) -> None:
    other = replace(members[1], point=replace(members[1].point, compression=0.5))
    files, failures = refitted(tmp_path, [other], SerialMap(task))
    assert files == {}
    assert "holds another compression than its trial measured" in failures[0]
