import math

import pytest
import torch

from tune_prune.hpo.budget import Budget
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.task import Task
from tune_prune.training.resources import Resources
from tune_prune.workflows import profiling
from tune_prune.workflows.profiling import Timings


def test_a_round_is_its_steps_and_an_evaluation() -> None:
    timings = Timings(step=0.5, evaluation=2.0)
    assert timings.shortest_round(Plan({}, {}, rounds=3, steps=4, final_steps=10)) == 4.0
    assert timings.shortest_round(Plan({}, {}, rounds=1, steps=4, final_steps=10)) == 7.0


def test_a_slow_step_is_read_once(toy_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    now, trained = [0.0], list[int]()

    def train(model: object, task: Task, plan: Plan, steps: int, lr: float = 0.0) -> None:
        trained.append(steps)
        now[0] += 2.0 * steps

    monkeypatch.setattr(profiling, "train_dense", train)
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: now[0])
    found = profiling.measure_timings(toy_task, Plan({}, {}), torch.device("cpu"), threads=1)
    assert (found.step, trained) == (2.0, [1, 1])


def test_steps_that_a_search_has_time_for() -> None:
    resources = Resources(device="cpu", max_concurrent=2)
    assert profiling.count_steps(Budget(100), Timings(0.5, 1.0), resources) == math.inf
    assert 350 < profiling.count_steps(Budget(None, 100.0, reserve=10.0), Timings(0.5, 1.0), resources) <= 360


def test_timing_leaves_everything_as_it_was(toy_task: Task) -> None:
    before = {key: value.clone() for key, value in toy_task.weights.items()}
    torch.set_num_threads(1)
    plan = Plan({"2": 0.5}, {"2": "mag"}, steps=3, lr=1e9, distill=0.5)  # a rate at which training would diverge
    found = profiling.measure_timings(toy_task, plan, torch.device("cpu"), threads=2)
    assert found.step > 0
    assert found.evaluation > 0
    assert torch.get_num_threads() == 1
    assert all(torch.equal(value, before[key]) for key, value in toy_task.weights.items())
