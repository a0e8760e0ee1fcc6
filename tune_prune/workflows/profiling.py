"""Measures what a trial takes on this machine: the time of a step and of an evaluation, and its memory on a GPU.

From the memory follows how many trials share a GPU.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from tune_prune.common.errors import UserError
from tune_prune.hpo.budget import Budget
from tune_prune.pruning import masks
from tune_prune.pruning.iterative import round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.results.forecast import check_foresight
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.tasks.metrics import ERROR, evaluate
from tune_prune.tasks.per_sample import CERTIFIED_SAMPLES, SAMPLES, measure_samples
from tune_prune.tasks.resampling import time_resamples
from tune_prune.tasks.task import Task
from tune_prune.training.loop import fit
from tune_prune.training.resources import Resources, limit_threads
from tune_prune.workflows.progress import FILES

RAY_START = 6.0
"""Seconds that Ray takes to start, roughly."""

TIMED_STEPS = 10
"""Steps that are timed, after as many that are not: the first ones also initialise the libraries."""

LONGEST_TIMING = 3.0
"""Seconds that timing so many steps may take; where it would take longer, single steps are timed."""


@dataclass(frozen=True)
class Timings:
    """Seconds on one worker: of one training step, of one evaluation of the validation images, and of its interval.

    The interval of an error takes no time; that of another metric is measured sample by sample.
    """

    step: float
    evaluation: float
    interval: float = 0.0

    @property
    def test(self) -> float:
        """Seconds of testing a model, about, where there are as many test as validation images."""
        return self.evaluation + self.interval

    def test_for(self, certify: float | None) -> float:
        """The same for certificates, which measure each sample of the error, and up to ten times as many of others."""
        if certify is None:
            return self.test
        return 2 * self.evaluation + CERTIFIED_SAMPLES / SAMPLES * self.interval

    def round_seconds(self, steps: int) -> float:
        """Seconds of a round with so many steps, without the statistics of its pruners."""
        return steps * self.step + self.evaluation

    def shortest_round(self, plan: Plan) -> float:
        """Seconds of the shortest round of a plan."""
        return self.round_seconds(min(plan.recipe_at(round_).steps for round_ in (1, plan.rounds)))


def time_step(model: nn.Module, task: Task, plan: Plan) -> float:
    """The seconds of a training step of a model, which is on the task's device; it stays as it is."""
    step = 0.0
    for number, steps in enumerate((1, 1, TIMED_STEPS, TIMED_STEPS)):
        if number > 1 and step * steps > LONGEST_TIMING:  # a slow step was read well enough
            break
        began = time.perf_counter()
        train_dense(model, task, plan, steps)
        step = (time.perf_counter() - began) / steps
    return step


def measure_timings(task: Task, plan: Plan, device: torch.device, threads: int) -> Timings:
    """Times a step and an evaluation of a copy of the dense model."""
    with limit_threads(threads):
        model, on_device = task.dense_model(device), task.to(device)
        step = time_step(model, on_device, plan)
        began = time.perf_counter()
        value = evaluate(model, on_device.validation).metric
        measure_further(model, on_device.validation, "val")
        evaluation = time.perf_counter() - began
        later = 0.0
        if isinstance(on_device.validation, BatchSplit) and task.metric != ERROR:
            found = measure_samples(model, on_device.validation, value)
            later = time_resamples(model, on_device.validation) if isinstance(found, str) else 0.0
        return Timings(step, evaluation, time.perf_counter() - began - evaluation + later)


def train_dense(model: nn.Module, task: Task, plan: Plan, steps: int, lr: float = 0.0) -> None:
    """Trains as in a trial, with masks that remove nothing; at a learning rate of 0 no plan can diverge."""
    pairs = [(weight, torch.ones_like(weight)) for weight in masks.prunable(model).values()]
    recipe = replace(plan.recipe_at(1), steps=steps, lr=lr)
    fit(model, task.train, recipe, round_generator(0, 1), masks=pairs, teacher=task.make_teacher(plan.distill))


CONTEXT = 768 * 2**20
"""Bytes of a GPU's memory that a process takes before its first tensor, about: CUDA's context and libraries."""

MEMORY_STEPS = 5
"""Steps whose memory is measured; enough for a step to be recorded, which takes memory of its own."""


def measure_memory(task: Task, plan: Plan, device: torch.device) -> int:
    """Measures the bytes that a worker takes on a GPU: context, data, and training and evaluating a dense model."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    model, on_device = task.dense_model(device), task.to(device)
    train_dense(model, on_device, plan, MEMORY_STEPS)
    evaluate(model, on_device.validation)
    return CONTEXT + torch.cuda.max_memory_reserved(device) - before


def gpu_share(need: int, total: int, processors: float) -> float:
    """The share of a GPU with `total` bytes that a trial asks for, where each trial takes `need` bytes and a processor.

    A fifth of the memory is left free: other pruners than the measured one may need more.
    """
    fit_in = int(0.8 * total // need)
    return 1 / max(1, min(fit_in, int(processors)))


def with_gpu_share(resources: Resources, task: Task, plan: Plan, say: Callable[[str], None]) -> Resources:
    """The resources, with the share of a GPU that a trial is measured to need where the user named none.

    Several processes that train a trial have a GPU each.
    """
    if resources.torch_device == "cpu" or resources.gpus_per_trial is not None or resources.workers_per_trial > 1:
        return resources
    device = torch.device(resources.torch_device)
    need = measure_memory(task, plan, device)
    total = torch.cuda.get_device_properties(device).total_memory
    processors = (os.cpu_count() or 1) / resources.cpus_per_trial / torch.cuda.device_count()
    share = gpu_share(need, total, processors)
    say(f"a trial needs {need / 2**20:.0f} MB on a GPU: {round(1 / share)} at a time on each")
    return replace(resources, gpus_per_trial=share)


def count_steps(budget: Budget, timings: Timings, resources: Resources) -> float:
    """Counts the training steps for which a search has time, in all its trials; infinite where time is no limit."""
    if budget.seconds is None or not timings.step:
        return math.inf
    return budget.remaining / timings.step * _count_concurrent(resources)


def _count_concurrent(resources: Resources) -> float:
    """How many trials run at a time at most; infinite where a cluster decides."""
    return math.inf if resources.address else resources.max_concurrent or os.cpu_count() or 1


def time_rounds(
    budget: Budget, resources: Resources, task: Task, plan: Plan, stop_when: float | None = None
) -> Timings:
    """Measures timings where time is limited; raises a `UserError` where not one round fits into the time budget.

    Also where `stop_when` would see nothing: where too few trials fit, even of one round each.
    """
    if budget.seconds is None:
        return Timings(0.0, 0.0)
    timings = measure_timings(task, plan, torch.device(resources.own_device), resources.threads)
    round_ = timings.shortest_round(plan)
    others = budget.elapsed + RAY_START + FILES + 2 * timings.test  # of the test images, at least
    if budget.seconds < others + round_:
        takes = f"a round takes {round_:.1f} s here, and all that comes before and after it {others:.0f} s"
        least = math.ceil(others + round_)
        raise UserError(f"--time-budget {budget.seconds:g}s is too short: {takes}; give at least {least}s")
    if stop_when is not None:
        rounds = _count_concurrent(resources) * (budget.seconds - others) / round_
        check_foresight(rounds, f"a --time-budget of {budget.seconds:g}s")
    return timings
