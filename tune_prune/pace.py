"""How long things take on this machine: a step of training, an evaluation, a round."""

import time
from dataclasses import dataclass, replace

import torch

from tune_prune.pruning import masks
from tune_prune.pruning.iterative import round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task
from tune_prune.training.loop import fit

STEPS = 10
"""Steps that are timed, after as many that are not: the first ones also start the libraries."""


@dataclass(frozen=True)
class Pace:
    """Seconds of one training step and of one evaluation of the validation images, on one worker."""

    step: float
    evaluation: float

    def of(self, steps: int) -> float:
        """Seconds of a round with so many steps, without what its pruners measure."""
        return steps * self.step + self.evaluation

    def round_of(self, plan: Plan) -> float:
        """Seconds of the shortest round of a plan."""
        return self.of(min(plan.recipe_at(round_).steps for round_ in (1, plan.rounds)))


def measure(task: Task, plan: Plan, device: torch.device, threads: int) -> Pace:
    """Time a copy of the dense model as trials would train it; at a rate of 0, so that no plan can diverge."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, recipe = task.dense_model(device), replace(plan.recipe_at(1), steps=STEPS, lr=0.0)
        on = task.to(device)
        pairs = [(weight, torch.ones_like(weight)) for weight in masks.prunable(model).values()]
        for _ in range(2):
            began = time.perf_counter()
            fit(model, on.train, recipe, round_generator(0, 1), masks=pairs, teacher=on.teacher)
            step = (time.perf_counter() - began) / STEPS
        began = time.perf_counter()
        evaluate(model, on.validation)
        return Pace(step, time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
