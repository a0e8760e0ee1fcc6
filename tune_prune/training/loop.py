"""Trains a model in place: `fit`, the loop over steps and epochs."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.common.seeding import derive_seed
from tune_prune.common.source_lines import describe_code
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.objective import CLASSIFICATION, Objective
from tune_prune.tasks.parts import Part
from tune_prune.tasks.splits import AnySplit, Split
from tune_prune.training.batch_loop import fit_batches
from tune_prune.training.data_parallel import Replica
from tune_prune.training.optim import SGD, Optimizer, Recipe
from tune_prune.training.progress import step_done
from tune_prune.training.sparse_layers import sparse_layers
from tune_prune.training.step import RecordedStep, Step, can_record
from tune_prune.training.torch_optimizer import TorchOptimizer
from tune_prune.training.user_fit import fit_by_user

Teacher = Tensor | nn.Module
"""What distils into a model: the dense model's logits on the split, [n, classes], or the dense model itself."""

CHECKED_SAMPLES = 32
"""Samples of the step that checks a user's training."""


class DivergedError(RuntimeError):
    """The training loss became infinite or not a number."""


def steps_for(epochs: float, per_epoch: int) -> int:
    """Converts epochs, also a fraction, to steps: at least one, but none for 0 epochs."""
    return max(1, round(epochs * per_epoch)) if epochs else 0


def make_optimizer(model: nn.Module, recipe: Recipe, objective: Objective = CLASSIFICATION) -> Optimizer:
    """Makes the optimizer that `fit` uses: the user's, else SGD. Raises a `UserError` where the user's cannot be."""
    if objective.optimizer_function is None:
        return SGD(model.parameters(), recipe.momentum, recipe.weight_decay)
    return TorchOptimizer.make(objective.optimizer_function, model, recipe.lr, objective.name_of("optimizer"))


def fit(
    model: nn.Module,
    split: AnySplit,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    masks: Sequence[tuple[Tensor, Tensor]] = (),
    teacher: Teacher | None = None,
    on_epoch: Callable[[int, Evaluation], None] | None = None,
    optimizer: Optimizer | None = None,
    epochs_done: int = 0,
    part: Part | None = None,
) -> float:
    """Trains in place for `recipe.steps` steps; returns the mean training loss of the last epoch begun.

    `masks` are pairs (weight, mask of 0 and 1, same shape): after every step the removed weights are set back to
    exactly zero, since momentum and weight decay may have changed them. `teacher` holds logits [n, classes] for a
    `Split`, and is the dense model for any other. `generator` decides the order of the samples and every other random
    draw, those of layers such as dropout too.
    After each whole epoch, `on_epoch` is called with its number, from 1, and the mean error and loss of its batches.
    A training loop of the user's takes the place of all this; `on_epoch` is then called once, at its end.
    On a CPU, layers that keep little are computed by their kept weights alone (`sparse_layers`).
    With a `part`, several processes that have joined a group (`data_parallel`) train together: each is called with the
    same arguments but its own part. A training loop of the user's has to be one process's.
    With `epochs_done`, training resumes after that epoch; model, generator and `optimizer` must be as they were then.
    Raises `DivergedError`.
    """
    model.train()
    if split.objective.fit_function is not None:
        assert not isinstance(teacher, Tensor)
        assert part is None
        mean = fit_by_user(model, split, recipe, generator, masks, teacher)
        if on_epoch is not None:
            on_epoch(recipe.steps // split.steps(recipe.batch_size), Evaluation(math.nan, mean))
        return mean
    replica = None if part is None else Replica(model, part)
    if isinstance(split, BatchSplit):
        assert not isinstance(teacher, Tensor)
        optimizer = optimizer or make_optimizer(model, recipe, split.objective)
        check = partial(_mean_loss, recipe=recipe, replica=replica)
        return fit_batches(
            model, split, recipe, generator, optimizer, check,
            masks=masks, teacher=teacher, on_epoch=on_epoch, epochs_done=epochs_done, replica=replica,
        )  # fmt: skip
    assert not isinstance(teacher, nn.Module)
    objective = split.objective
    alone = optimizer is None and part is None and objective.optimizer_function is None
    exact = objective.settings.precision in (None, "fp32")
    sample = split.as_float(split.inputs[:2])
    with sparse_layers(model, masks, sample) if alone and exact else nullcontext(masks) as rest:
        optimizer = optimizer or make_optimizer(model, recipe, objective)
        step = Step(model, split, recipe, optimizer, generator, rest, teacher, on_epoch is not None, replica)
        return _fit_in_memory(step, on_epoch, epochs_done)


def _fit_in_memory(
    eager: Step, on_epoch: Callable[[int, Evaluation], None] | None = None, epochs_done: int = 0
) -> float:
    """Trains as `fit` does, by steps on tensors in memory, which are recorded where that is possible."""
    split, recipe, generator = eager.split, eager.recipe, eager.generator
    device = split.labels.device
    size = min(recipe.batch_size * recipe.accumulate, split.count)
    precision = split.objective.settings.precision
    recorded = eager.replica is None and isinstance(eager.optimizer, SGD)
    recorded = recorded and can_record(eager.model, recipe, device, precision)
    step = RecordedStep(eager, size) if recorded else eager
    per_epoch = split.steps(size)
    losses: list[Tensor] = []
    wrong: list[Tensor] = []
    mean = math.nan
    first_step = epochs_done * per_epoch
    batches = _draw_batches(split.count, size, recipe.steps, generator, first_step, device)
    rank = () if eager.replica is None else (eager.replica.part.rank,)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for done, index in enumerate(batches, start=first_step + 1):
            if done % per_epoch == 1 or per_epoch == 1:  # layers such as dropout draw from torch's own generator
                torch.manual_seed(derive_seed(generator.initial_seed(), done, *rank))
            result = step(index, recipe.lr_at(done - 1))
            losses.append(result.loss)
            wrong.append(result.wrong)
            step_done(done, recipe.steps)
            if done % per_epoch == 0 or done == recipe.steps:
                mean = _mean_loss(torch.stack(losses), done, recipe, eager.replica)
                if on_epoch is not None and done % per_epoch == 0:
                    on_epoch(done // per_epoch, Evaluation(100 * _mean(torch.stack(wrong), eager.replica), mean))
                losses.clear()
                wrong.clear()
    return mean


def check_training(model: nn.Module, split: AnySplit, distill: float = 0.0, label_smoothing: float = 0.0) -> None:
    """Makes a step on a copy of the model; a `UserError` where something of the user's fails, or makes none.

    With `distill` and `label_smoothing` as in `Recipe`. What is all built in needs no check.
    """
    objective = split.objective
    if isinstance(split, Split) and objective.optimizer_function is None and objective.fit_function is None:
        return
    own_loop = objective.fit_function is not None
    copied = copy.deepcopy(model)
    taught = own_loop or (isinstance(split, BatchSplit) and distill > 0)  # others have a teacher's logits
    recipe = Recipe(1, 1e-6, batch_size=CHECKED_SAMPLES, distill=distill * taught, label_smoothing=label_smoothing)
    pairs = [(weight, torch.ones_like(weight)) for weight in copied.parameters()]
    few = split.head(CHECKED_SAMPLES).to(pairs[0][0].device)
    teacher = copy.deepcopy(model) if taught else None
    try:
        fit(copied, few, recipe, torch.Generator().manual_seed(0), masks=pairs, teacher=teacher)
    except DivergedError as error:
        where = describe_code("loss", objective.name_of("loss"), objective.loss_function)
        raise UserError(f"{where}: {error}, on the first samples; it must be finite for the dense model") from error


def _draw_batches(
    n: int, size: int, steps: int, generator: torch.Generator, first_step: int, device: torch.device
) -> Iterator[Tensor]:
    """Yields an index batch for every step: a new permutation every epoch, its last short batch left out."""
    for step in range(first_step, steps):
        position = step % (n // size)
        if position == 0:
            order = torch.randperm(n, generator=generator).to(device)
        yield order[position * size : (position + 1) * size]


def _mean(values: Tensor, replica: Replica | None) -> float:
    """The mean of values of batches; where several processes share batches out, of what all have."""
    mean = values.mean()
    return float(mean if replica is None else replica.average(mean))


def _mean_loss(losses: Tensor, step: int, recipe: Recipe, replica: Replica | None = None) -> float:
    # read once an epoch: on a GPU every reading waits until the device has caught up
    mean = _mean(losses, replica)
    if not math.isfinite(mean):
        raise DivergedError(f"the training loss became {mean} within {step} steps at lr {recipe.lr:g}")
    return mean
