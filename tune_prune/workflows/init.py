"""Proposes a space for a model and its data: what `tune-prune init` writes, and a search without a file searches."""

import itertools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from tune_prune.common.entrypoints import describe_address
from tune_prune.common.errors import UserError
from tune_prune.common.flags import build
from tune_prune.hpo import run_files, schedule_proposal, space_proposal, space_reader
from tune_prune.hpo.config import Config
from tune_prune.hpo.space_proposal import RatioLine, Training
from tune_prune.pruning import masks
from tune_prune.pruning.granularity import GROUPED, MIXTURES, check_name
from tune_prune.pruning.plan import WEIGHTS, Plan
from tune_prune.tasks.metrics import Evaluation, evaluate
from tune_prune.tasks.settings import DISTILL_SHARE, TaskSettings
from tune_prune.tasks.task import Task
from tune_prune.training.loop import DivergedError, check_training
from tune_prune.training.resources import Resources, limit_threads
from tune_prune.workflows.loss_curves import LEAST_IMAGES, count_images
from tune_prune.workflows.preparation import Begun, LoadedTask, load_task
from tune_prune.workflows.profiling import time_step, train_dense

DEFAULT_SECONDS = 1800.0
"""The time that a search is made for where none is given."""

TRAINED = 0.8
"""The share of a search's time in which trials train."""

LEARNING_RATES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003, 0.00001)
"""The highest learning rates that are tried, the first first."""

RATE_STEPS, LEAST_RATE_STEPS = 30, 5
"""Steps of training by which a learning rate is judged, and the fewest where a step is slow."""

RAISED = 3
"""How many times as many steps a higher learning rate is tried for, of a model that training still improves."""

RATE_SHARE = 0.015
"""The share of a search's time that the steps of one learning rate may take."""

BY_OUTPUT = ("filter", "neuron")
"""Granularities that remove whole outputs; the layer of the class scores needs all of its own."""


@dataclass(frozen=True)
class ProposalRequest:
    """What a space is to be for: `model`, `data` and `weights` as in [task], other settings, and seconds of search.

    `trials` is the budget in trials where one is given, `granularity` what a trial removes as one, or a list of which
    trials choose, and `acc_tradeoff` the accuracy to be given up, in the metric's unit, where it is not the default.
    Raises a `UserError` for an unknown granularity.
    """

    model: str
    data: str
    weights: str | None = None
    settings: TaskSettings = field(default_factory=TaskSettings)
    seconds: float = DEFAULT_SECONDS
    force: bool = False
    trials: int | None = None
    granularity: object = "weight"
    acc_tradeoff: float | None = None

    def __post_init__(self) -> None:
        """Refuses an unknown granularity before anything is measured."""
        for name in self.granularity if isinstance(self.granularity, list | tuple) else [self.granularity]:
            check_name(str(name))


def propose_space(request: ProposalRequest, resources: Resources, say: Callable[[str], None]) -> str:
    """The text of a space for a model; it is measured how long a step takes and which learning rates it bears.

    Raises a `UserError` where model and data do not fit each other, or the model is not trained.
    """
    return _write_space(request, resources, _load(request, resources, say))


def _load(request: ProposalRequest, resources: Resources, say: Callable[[str], None]) -> LoadedTask:
    """Loads the model and the data of a request; `propose_space` says what it raises."""
    named = (request.model, request.weights, request.data, request.settings)
    return load_task(*named, torch.device(resources.own_device), say, force=request.force, where="--")


def _write_space(request: ProposalRequest, resources: Resources, loaded: LoadedTask) -> str:
    """The text of a space for a model that was loaded."""
    device, task = torch.device(resources.own_device), loaded.task
    shapes = masks.shapes(loaded.dense)
    if not shapes:
        raise UserError(f"--model: {request.model} has no layer that can be pruned; tune_prune.register adds layers")
    check_training(loaded.dense, task.train, DISTILL_SHARE)
    concurrent = resources.max_concurrent or (1 if device.type == "cuda" else os.cpu_count() or 1)
    seconds = TRAINED * concurrent * request.seconds
    plan, step = choose_batches(task, device, resources.threads, seconds)
    rate_steps = min(RATE_STEPS, max(LEAST_RATE_STEPS, int(RATE_SHARE * request.seconds / step)))
    lr = find_learning_rate(task, plan, device, rate_steps, request.acc_tradeoff)
    if request.settings.distill is None and is_held_back(task, plan, lr, device, rate_steps):
        plan, step = choose_batches(task, device, resources.threads, seconds, distill=0.0)
        lr = raise_learning_rate(task, plan, lr, device, RAISED * rate_steps, request.acc_tradeoff)
    batch_size, epoch, steps = plan.batch_size, task.train.steps(plan.batch_size), seconds / step
    if isinstance(request.granularity, str):
        schedule = schedule_proposal.propose_gradual(steps, steps / concurrent, epoch, request.trials)
    else:
        schedule = schedule_proposal.propose_schedule(steps, epoch, request.trials)
    images = min(steps, schedule.trials * 3 * schedule.steps) * batch_size
    training = Training(
        lr=lr, distill=plan.distill, batch_size=batch_size, epoch=epoch,
        # measuring what pruners need costs as much as training on so many images
        sample=max(LEAST_IMAGES, min(plan.sample, schedule.steps * batch_size // 2)),
        measured=count_images(images, len(shapes), loaded.dense) > 0,
    )  # fmt: skip
    ratios = space_proposal.propose_ratios(shapes)
    total = sum(line.weights for line in ratios)
    exclude = []
    if request.granularity in GROUPED:
        ratios = [RatioLine("*", 0.0, 0.9, 1, total)]
        if request.granularity in MIXTURES:
            ratios.insert(0, RatioLine(f"{WEIGHTS}*", 0.0, 0.95, 1, total))
    elif request.granularity in BY_OUTPUT and len(shapes) > 1:
        exclude = [list(shapes)[-1]]
    comments = [
        f"{describe_address(request.model)} on {describe_address(request.data)}, for about "
        f"{request.seconds / 60:.0f} minutes, {concurrent} at a time; proposed by `tune-prune init`.",
        f"Dense model: {task.metric.describe(task.dense.metric, 'validation')}, {total:,} weights. A step takes "
        f"{1000 * step:.3g} ms.",
        f"{schedule.describe()}, in batches of {batch_size}, at learning rates around {lr:g}.",
    ]
    return space_proposal.write_proposal(
        _list_task(request), comments, ratios, schedule, training, exclude, request.granularity
    )


def propose_search(
    model: str,
    data: str,
    weights: str | None,
    given: Mapping[str, Any],
    say: Callable[[str], None],
    change: Callable[[str], str] = lambda text: text,
    granularity: object = "weight",
) -> Begun:
    """Begins a search of the space that is proposed for a model, for the time that it is given.

    `given` are the settings that the user named; `change` is applied to the space's text before it is read; for
    `granularity` see `ProposalRequest`.
    """
    config = build(Config, {"budget": 1} | dict(given))
    seconds = config.time_budget or DEFAULT_SECONDS
    request = ProposalRequest(
        model, data, weights, config.task, seconds, config.force, given.get("budget"), granularity, config.acc_tradeoff
    )
    say(f"no space is named: measuring {describe_address(model)}, to propose one")
    loaded = _load(request, config.resources, say)
    proposed = _write_space(request, config.resources, loaded)
    for line in itertools.takewhile(lambda line: line.startswith("#"), proposed.splitlines()):
        say(line.removeprefix("# "))
    text = change(proposed)
    space = space_reader.parse(text, name_space(model), "the proposed space")
    return Begun(*run_files.begin_search(space, text, given), loaded)


def name_space(model: str) -> str:
    """The name of a model's space: the last part of its name, `resnet18` of `torchvision:resnet18(num_classes=4)`."""
    last = describe_address(model).split("(")[0].split(":")[-1].strip()
    return re.sub(r"[^\w-]", "-", last)


def _list_task(request: ProposalRequest) -> Mapping[str, object]:
    """The keys of [task]."""
    named = {"model": request.model, "data": request.data, "weights": request.weights}
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in request.settings.given.items()}
    return {key: value for key, value in named.items() if value is not None} | given


def choose_batches(
    task: Task, device: torch.device, threads: int, seconds: float, distill: float = DISTILL_SHARE
) -> tuple[Plan, float]:
    """A plan with the largest batches of which so many seconds hold `ENOUGH_STEPS`, else the smallest.

    Returns the seconds of a step as well.
    """
    sizes = schedule_proposal.list_batch_sizes(task.train.steps)
    with limit_threads(threads):
        model, on_device = task.dense_model(device), task.to(device)
        for size in sizes:
            plan = Plan({}, {}, distill=distill, temperature=space_proposal.TEMPERATURE, batch_size=size)
            step = time_step(model, on_device, plan)
            if seconds / step >= schedule_proposal.ENOUGH_STEPS:
                break
    return plan, step


def find_learning_rate(
    task: Task, plan: Plan, device: torch.device, steps: int = RATE_STEPS, tradeoff: float | None = None
) -> float:
    """The highest of LEARNING_RATES that the dense model bears: so many steps of training leave it within the tradeoff.

    That is the metric's default where none is given. The lowest rate where the model bears none.
    """
    bears = partial(_bears, task.to(device), plan, device, steps, tradeoff)
    return next((lr for lr in LEARNING_RATES if bears(lr)), LEARNING_RATES[-1])


def raise_learning_rate(
    task: Task, plan: Plan, lr: float, device: torch.device, steps: int, tradeoff: float | None = None
) -> float:
    """The next higher of LEARNING_RATES, where the dense model bears it for so many steps, else the same.

    A model that is not trained to the end gets worse at first at a rate by which it becomes better later.
    """
    higher = LEARNING_RATES[max(LEARNING_RATES.index(lr) - 1, 0)]
    return higher if _bears(task.to(device), plan, device, steps, tradeoff, higher) else lr


def _bears(task: Task, plan: Plan, device: torch.device, steps: int, tradeoff: float | None, lr: float) -> bool:
    """Whether so many steps at a learning rate leave the dense model within the tradeoff."""
    metric = task.metric
    if tradeoff is None:
        tradeoff = metric.default_tradeoff(task.dense.metric) or 0.0
    found = _train_at(task, plan, lr, device, steps)
    return found is not None and metric.cost(found.metric) <= metric.cost(metric.limit(task.dense.metric, tradeoff))


def is_held_back(task: Task, plan: Plan, lr: float, device: torch.device, steps: int) -> bool:
    """Whether distillation holds the model back: so many steps leave a lower validation loss without it than with it.

    So it is of models that are not trained to the end.
    """
    on_device = task.to(device)
    alone, taught = (_train_at(on_device, p, lr, device, steps) for p in (replace(plan, distill=0.0), plan))
    return alone is not None and (taught is None or alone.loss < taught.loss)


def _train_at(task: Task, plan: Plan, lr: float, device: torch.device, steps: int) -> Evaluation | None:
    """The evaluation of the dense model after so many steps at a learning rate; None where it diverges."""
    model = task.dense_model(device)
    try:
        train_dense(model, task, plan, steps, lr)
    except DivergedError:
        return None
    return evaluate(model, task.validation)
