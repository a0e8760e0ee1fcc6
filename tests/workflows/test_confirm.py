import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import ended

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.warm_start import Stage
from tune_prune.results.confidence import Confirmation
from tune_prune.results.constraints import Constraints
from tune_prune.results.front import find_front
from tune_prune.results.records import TrialRecord
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import ERROR
from tune_prune.tasks.task import Task
from tune_prune.workflows.confirm import Repetition, confirm_front, list_repetitions, read_confirmations, run_repetition

CPU = torch.device("cpu")
PARAMS = TrialParams(
    {"2": 0.5, "4": 0.0}, "mag", training={"rounds": 1, "final_steps": 150, "lr": 0.1, "batch_size": 16}
)
HALF = 512 / 1088
BY_TRIAL: Mapping[int, TrialRecord] = {
    0: replace(ended(0, (0.5, 1.0), (0.6, 1.2)), params=PARAMS),
    2: replace(ended(2, (0.9, 1.5)), params=PARAMS, parent=0, parent_round=1),
}

# What is measured


def test_seeds_are_no_trial_s_and_no_two_alike() -> None:
    first, second = find_front(BY_TRIAL.values())[0::2]
    jobs = list_repetitions(first, BY_TRIAL, 9, 3)
    seeds = [job.seed for job in jobs]
    assert seeds == [derive_seed(9, -1, number) for number in (1, 2, 3)]
    assert len({*seeds, *(derive_seed(9, trial) for trial in range(1000))}) == 1003
    assert list_repetitions(first, BY_TRIAL, 9, 5)[:3] == jobs
    assert [job.seed for job in list_repetitions(second, BY_TRIAL, 9, 3)] == seeds
    assert jobs[0].stages == [Stage(0, 1, PARAMS)]
    assert list_repetitions(second, BY_TRIAL, 9, 1)[0].stages == [Stage(0, 1, PARAMS), Stage(2, 1, PARAMS)]


def repetition(params: TrialParams = PARAMS, seed: int = 1, compression: float = HALF) -> Repetition:
    return Repetition(0, 1, 1, seed, [Stage(0, 1, params)], compression)


def test_seeds_spread_what_training_reaches(toy_task: Task) -> None:
    errors = [run_repetition(toy_task, repetition(seed=seed), CPU, {})["val_error"] or 0.0 for seed in range(5)]
    assert max(errors) < 20 < toy_task.dense.metric
    assert len(set(errors)) > 1
    assert {"val_error": errors[0]} == run_repetition(toy_task, repetition(seed=0), CPU, {})


def test_one_that_diverges_leaves_no_network(toy_task: Task) -> None:
    assert run_repetition(toy_task, repetition(PARAMS.with_training(lr=1e30)), CPU, {}) == {"val_error": 100.0}


def test_another_compression_is_no_repetition(toy_task: Task) -> None:
    with pytest.raises(RuntimeError, match="another number of weights"):
        run_repetition(toy_task, repetition(compression=0.5), CPU, {})


# A front


@dataclass
class SerialMap:
    """A `ParallelMap` in this process: one repetition after the other, counted; it ends after `end` of them."""

    error: Callable[[Repetition], dict[str, float] | Exception] = lambda job: {"val_error": job.trial + job.number / 10}
    end: float = math.inf
    done: list[str] = field(default_factory=list)

    def __call__(self, work: object, jobs: Sequence[Repetition]) -> Iterator[tuple[Repetition, Any]]:
        assert work is run_repetition
        for job in jobs:
            if len(self.done) >= self.end:
                return
            self.done.append(job.file)
            yield job, self.error(job)


def confirmed(
    run_dir: Path, parallel_map: SerialMap, count: int = 2, seed: int = 0
) -> tuple[dict[str, Confirmation], list[str]]:
    members = find_front(BY_TRIAL.values())
    failures = confirm_front(run_dir, members, BY_TRIAL, ERROR, seed=seed, count=count, parallel_map=parallel_map)
    return read_confirmations(run_dir, members, BY_TRIAL, seed=seed, limits=Constraints(2.0)), failures


ALL = {"001": Confirmation((0.1, 0.2), 2.0), "002": Confirmation((0.1, 0.2), 2.0), "003": Confirmation((2.1, 2.2), 2.0)}


def test_every_member_from_every_seed(tmp_path: Path) -> None:
    serial = SerialMap()
    assert confirmed(tmp_path, serial) == (ALL, [])
    assert serial.done == [f"confirm/{at}-{number}.json" for at in ("0-1", "0-2", "2-1") for number in (1, 2)]
    assert sorted(serial.done) == sorted(f"confirm/{path.name}" for path in (tmp_path / "confirm").iterdir())


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    confirmed(tmp_path, SerialMap())
    for count, new, there in ((2, 0, 2), (3, 3, 3), (2, 0, 3)):  # what was measured once stays
        serial = SerialMap()
        confirmations, _ = confirmed(tmp_path, serial, count)
        assert len(serial.done) == new
        assert {len(made.metrics) for made in confirmations.values()} == {there}


@pytest.mark.parametrize("end", range(7))
def test_an_interruption_costs_nothing(tmp_path: Path, end: int) -> None:
    first, second = SerialMap(end=end), SerialMap()
    assert list(confirmed(tmp_path, first)[0]) == list(ALL)[: end // 2]
    assert confirmed(tmp_path, second) == (ALL, [])
    assert len(first.done + second.done) == len({*first.done, *second.done}) == 6


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"val_error": 1.0}', '{"val_error": "x", "seed": 0, "compression": 0.5}', "\udcff",
     '{"val_error": NaN, "seed": SEED, "compression": 0.5}', '{"val_error": 101, "seed": SEED, "compression": 0.5}'],
)  # fmt: skip
def test_a_damaged_file_is_measured_again(tmp_path: Path, text: str) -> None:
    confirmed(tmp_path, SerialMap())
    text = text.replace("SEED", str(derive_seed(0, -1, 1)))
    (tmp_path / "confirm/0-1-1.json").write_bytes(text.encode(errors="surrogateescape"))
    serial = SerialMap()
    assert confirmed(tmp_path, serial) == (ALL, [])
    assert serial.done == ["confirm/0-1-1.json"]


def test_a_file_of_another_seed_is_not_read(tmp_path: Path) -> None:
    confirmed(tmp_path, SerialMap())
    serial = SerialMap()
    confirmed(tmp_path, serial, seed=1)
    assert len(serial.done) == 6


def test_a_failure_is_reported_and_loses_no_other(tmp_path: Path) -> None:
    def one_fails(job: Repetition) -> dict[str, float] | Exception:
        return ValueError("no\nluck") if job.file == "confirm/0-2-2.json" else SerialMap.error(job)

    confirmations, failures = confirmed(tmp_path, SerialMap(one_fails))
    assert confirmations == {id_: ALL[id_] for id_ in ("001", "003")}
    assert failures == ["trial 0, round 2, repetition 2 failed: ValueError: no luck"]
    serial = SerialMap()
    assert confirmed(tmp_path, serial) == (ALL, [])
    assert serial.done == ["confirm/0-2-2.json"]


def test_one_repetition_is_refused_before_any_is_made(tmp_path: Path) -> None:
    serial = SerialMap()
    with pytest.raises(ValueError, match="at least 2, got 1"):
        confirmed(tmp_path, serial, count=1)
    assert serial.done == []


def test_what_is_kept_says_what_it_is(tmp_path: Path) -> None:
    confirmed(tmp_path, SerialMap())
    kept = json.loads((tmp_path / "confirm/2-1-2.json").read_text())
    assert kept == {"seed": derive_seed(0, -1, 2), "compression": 0.9, "val_error": 2.2}
