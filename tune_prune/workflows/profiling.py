"""How long things take on this machine: a step of training, an evaluation, a round.

How many trials share a GPU: as many as its memory holds, and as there are processors to launch their work.
"""

import time
from dataclasses import dataclass, replace

import torch

from tune_prune.pruning import masks
from tune_prune.pruning.iterative import round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task
from tune_prune.training.loop import fit

TIMED_STEPS = 10
"""Steps that are timed, after as many that are not: the first ones also start the libraries."""


@dataclass(frozen=True)
class Timings:
    """Seconds of one training step and of one evaluation of the validation images, on one worker."""

    step: float
    evaluation: float

    def of(self, steps: int) -> float:
        """Seconds of a round with so many steps, without what its pruners measure."""
        return steps * self.step + self.evaluation

    def round_of(self, plan: Plan) -> float:
        """Seconds of the shortest round of a plan."""
        return self.of(min(plan.recipe_at(round_).steps for round_ in (1, plan.rounds)))


def measure_timings(task: Task, plan: Plan, device: torch.device, threads: int) -> Timings:
    """Time a copy of the dense model as trials would train it; at a rate of 0, so that no plan can diverge."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, recipe = task.dense_model(device), replace(plan.recipe_at(1), steps=TIMED_STEPS, lr=0.0)
        on = task.to(device)
        pairs = [(weight, torch.ones_like(weight)) for weight in masks.prunable(model).values()]
        for _ in range(2):
            began = time.perf_counter()
            fit(model, on.train, recipe, round_generator(0, 1), masks=pairs, teacher=on.teacher)
            step = (time.perf_counter() - began) / TIMED_STEPS
        began = time.perf_counter()
        evaluate(model, on.validation)
        return Timings(step, time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)


CONTEXT = 768 * 2**20
"""Bytes of a GPU's memory that a process takes before its first tensor, about: CUDA's context and libraries."""

MEMORY_STEPS = 5
"""Steps that are run to see what they need; a recorded step's own memory is among it."""


def measure_memory(task: Task, plan: Plan, device: torch.device) -> int:
    """Bytes that a worker takes on a GPU: context, data, and training and evaluating a copy of the dense model."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    model, on = task.dense_model(device), task.to(device)
    pairs = [(weight, torch.ones_like(weight)) for weight in masks.prunable(model).values()]
    recipe = replace(plan.recipe_at(1), steps=MEMORY_STEPS, lr=0.0)  # at a rate of 0 no plan can diverge
    fit(model, on.train, recipe, round_generator(0, 1), masks=pairs, teacher=on.teacher)
    evaluate(model, on.validation)
    return CONTEXT + torch.cuda.max_memory_reserved(device) - before


def gpu_share(need: int, total: int, processors: float) -> float:
    """The share of a GPU with `total` bytes that a trial asks for, of which each needs so many bytes and a processor.

    A fifth of the memory is left free: pruners other than those that were tried may need more.
    """
    fit_in = int(0.8 * total // need)
    return 1 / max(1, min(fit_in, int(processors)))
