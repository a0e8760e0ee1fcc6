"""Proposes a space for a model and its data: what `tune-prune init` writes, and a search without a file searches."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from tune_prune.common.entrypoints import describe_address
from tune_prune.common.errors import UserError
from tune_prune.hpo import space_proposal
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import Evaluation, evaluate
from tune_prune.tasks.settings import DISTILL_SHARE, TaskSettings
from tune_prune.tasks.task import Task, check_trained, prepare_task
from tune_prune.training.loop import DivergedError, check_training
from tune_prune.training.resources import Resources
from tune_prune.workflows.profiling import measure_timings, train_dense

DEFAULT_SECONDS = 1800.0
"""The time that a search is made for where none is given."""

TRAINED = 0.8
"""The share of a search's time in which trials train."""

LEARNING_RATES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003, 0.00001)
"""The highest learning rates that are tried, the first first."""

RATE_STEPS = 30
"""Steps of training by which a learning rate is judged."""


@dataclass(frozen=True)
class ProposalRequest:
    """What a space is to be for: `model`, `data` and `weights` as in [task], other settings, and seconds of search."""

    model: str
    data: str
    weights: str | None = None
    settings: TaskSettings = field(default_factory=TaskSettings)
    seconds: float = DEFAULT_SECONDS
    force: bool = False


def propose_space(request: ProposalRequest, resources: Resources, say: Callable[[str], None]) -> str:
    """The text of a space for a model; it is measured how long a step takes and which learning rates it bears.

    Raises a `UserError` where model and data do not fit each other, or the model is not trained.
    """
    device = torch.device(resources.own_device)
    dense = checkpoint.load_dense_model(request.model, request.weights, "--")
    shapes = masks.shapes(dense)
    if not shapes:
        raise UserError(f"--model: {request.model} has no layer that can be pruned; tune_prune.register adds layers")
    task, _ = prepare_task(
        request.model, dense, request.data, device, say, settings=request.settings, check_test=True, where="--data"
    )
    check_trained(request.model, task.dense, task.validation, request.force)
    check_training(dense, task.train, DISTILL_SHARE)
    plan = Plan({}, {}, distill=DISTILL_SHARE)
    step = measure_timings(task, plan, device, resources.threads).step
    epoch = task.train.steps(plan.batch_size)
    lr = find_learning_rate(task, plan, device)
    concurrent = resources.max_concurrent or (1 if device.type == "cuda" else os.cpu_count() or 1)
    schedule = space_proposal.propose_schedule(TRAINED * concurrent * request.seconds / step, epoch)
    ratios = space_proposal.propose_ratios(shapes)
    total = sum(line.weights for line in ratios)
    comments = [
        f"{describe_address(request.model)} on {describe_address(request.data)}, for about "
        f"{request.seconds / 60:.0f} minutes, {concurrent} at a time; proposed by `tune-prune init`.",
        f"Dense model: {task.metric.describe(task.dense.metric, 'validation')}, {total:,} weights. A step takes "
        f"{1000 * step:.3g} ms.",
    ]
    return space_proposal.write_proposal(_list_task(request), comments, ratios, schedule, lr, epoch, DISTILL_SHARE)


def _list_task(request: ProposalRequest) -> Mapping[str, object]:
    """The keys of [task]."""
    named = {"model": request.model, "data": request.data, "weights": request.weights}
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in request.settings.given.items()}
    return {key: value for key, value in named.items() if value is not None} | given


def find_learning_rate(task: Task, plan: Plan, device: torch.device) -> float:
    """The highest of LEARNING_RATES that the dense model bears: RATE_STEPS of training leave it within the tradeoff.

    The lowest where it bears none.
    """
    on_device, metric = task.to(device), task.metric
    tradeoff = metric.default_tradeoff(task.dense.metric) or 0.0
    limit = metric.cost(metric.limit(task.dense.metric, tradeoff))
    for lr in LEARNING_RATES:
        found = _train_at(on_device, plan, lr, device)
        if found is not None and metric.cost(found.metric) <= limit:
            return lr
    return LEARNING_RATES[-1]


def _train_at(task: Task, plan: Plan, lr: float, device: torch.device) -> Evaluation | None:
    """The evaluation of the dense model after RATE_STEPS at a learning rate; None where it diverges."""
    model = task.dense_model(device)
    try:
        train_dense(model, task, plan, RATE_STEPS, lr)
    except DivergedError:
        return None
    return evaluate(model, task.validation)
