import torch

from tune_prune.pruning.plan import Plan
from tune_prune.tasks.task import Task
from tune_prune.workflows import profiling
from tune_prune.workflows.profiling import Timings


def test_a_round_is_its_steps_and_an_evaluation() -> None:
    timings = Timings(step=0.5, evaluation=2.0)
    assert timings.shortest_round(Plan({}, {}, rounds=3, steps=4, final_steps=10)) == 4.0
    assert timings.shortest_round(Plan({}, {}, rounds=1, steps=4, final_steps=10)) == 7.0


def test_timing_leaves_everything_as_it_was(toy_task: Task) -> None:
    before = {key: value.clone() for key, value in toy_task.weights.items()}
    torch.set_num_threads(1)
    plan = Plan({"2": 0.5}, {"2": "mag"}, steps=3, lr=1e9, distill=0.5)  # a rate at which training would diverge
    found = profiling.measure_timings(toy_task, plan, torch.device("cpu"), threads=2)
    assert found.step > 0
    assert found.evaluation > 0
    assert torch.get_num_threads() == 1
    assert all(torch.equal(value, before[key]) for key, value in toy_task.weights.items())
