"""How many trials share a GPU: as many as its memory holds, and as there are processors to launch their work."""

from dataclasses import replace

import torch

from tune_prune.pruning import masks
from tune_prune.pruning.iterative import round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task
from tune_prune.training.loop import fit

CONTEXT = 768 * 2**20
"""Bytes of a GPU's memory that a process takes before its first tensor, about: CUDA's context and libraries."""

STEPS = 5
"""Steps that are run to see what they need; a recorded step's own memory is among it."""


def memory_need(task: Task, plan: Plan, device: torch.device) -> int:
    """Bytes that a worker takes on a GPU: context, data, and training and evaluating a copy of the dense model."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    model, on = task.dense_model(device), task.to(device)
    pairs = [(weight, torch.ones_like(weight)) for weight in masks.prunable(model).values()]
    recipe = replace(plan.recipe_at(1), steps=STEPS, lr=0.0)  # at a rate of 0 no plan can diverge
    fit(model, on.train, recipe, round_generator(0, 1), masks=pairs, teacher=on.teacher)
    evaluate(model, on.validation)
    return CONTEXT + torch.cuda.max_memory_reserved(device) - before


def share_of(need: int, total: int, processors: float) -> float:
    """The share of a GPU with `total` bytes that a trial asks for, of which each needs so many bytes and a processor.

    A fifth of the memory is left free: pruners other than those that were tried may need more.
    """
    fit_in = int(0.8 * total // need)
    return 1 / max(1, min(fit_in, int(processors)))
