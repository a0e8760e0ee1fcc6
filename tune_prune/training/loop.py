"""Fit and evaluate: the one hot loop."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from tune_prune.common.seeding import derive_seed
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.splits import Split
from tune_prune.training.optim import SGD, Recipe
from tune_prune.training.step import RecordedStep, Step, can_record


class DivergedError(RuntimeError):
    """The training loss became infinite or not a number."""


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Whole batches in one pass over n images; one where there are fewer images than a batch holds."""
    return max(1, n // batch_size)


def steps_for(epochs: float, per_epoch: int) -> int:
    """The steps of so many epochs, parts of one too: at least one step, but none in none."""
    return max(1, round(epochs * per_epoch)) if epochs else 0


def _batches(n: int, recipe: Recipe, generator: torch.Generator, first: int, device: torch.device) -> Iterator[Tensor]:
    """An index batch for every step: a new permutation every epoch, its last short batch left out."""
    size = min(recipe.batch_size, n)
    for step in range(first, recipe.steps):
        at = step % (n // size)
        if at == 0:
            order = torch.randperm(n, generator=generator).to(device)
        yield order[at * size : (at + 1) * size]


def make_optimizer(model: nn.Module, recipe: Recipe) -> SGD:
    """What `fit` steps with."""
    return SGD(model.parameters(), recipe.momentum, recipe.weight_decay)


def fit(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    masks: Sequence[tuple[Tensor, Tensor]] = (),
    teacher: Tensor | None = None,
    on_epoch: Callable[[int, Evaluation], None] | None = None,
    optimizer: SGD | None = None,
    epochs_done: int = 0,
) -> float:
    """Train in place for `recipe.steps` steps; returns the mean training loss of the last epoch begun.

    `masks` are pairs (weight, mask of 0 and 1, same shape); after every step a removed weight is set back to
    exactly zero, whatever momentum and weight decay made of it. `teacher` holds logits [n, classes] for the split.
    `generator` decides the order of the images and all that is drawn, by layers such as dropout too.
    `on_epoch(epoch from 1, error and loss of the batches as they went by)` is called after each whole epoch. Training
    goes on after `epochs_done` epochs where the model, the generator and the `optimizer` are as they were then. Raises
    `DivergedError`.
    """
    model.train()
    optimizer = optimizer or make_optimizer(model, recipe)
    device = split.labels.device
    as_it_comes = Step(model, split, recipe, optimizer, generator, masks, teacher, on_epoch is not None)
    size = min(recipe.batch_size, len(split.labels))
    step = RecordedStep(as_it_comes, size) if can_record(model, recipe, device) else as_it_comes
    per_epoch = steps_per_epoch(len(split.labels), recipe.batch_size)
    losses: list[Tensor] = []
    wrong: list[Tensor] = []
    mean = math.nan
    first = epochs_done * per_epoch
    batches = _batches(len(split.labels), recipe, generator, first, device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for done, index in enumerate(batches, start=first + 1):
            if done % per_epoch == 1 or per_epoch == 1:  # what layers such as dropout draw from
                torch.manual_seed(derive_seed(generator.initial_seed(), done))
            took = step(index, recipe.lr_at(done - 1))
            losses.append(took.loss)
            wrong.append(took.wrong)
            if done % per_epoch == 0 or done == recipe.steps:
                mean = _mean(losses, done, recipe)
                if on_epoch is not None and done % per_epoch == 0:
                    on_epoch(done // per_epoch, Evaluation(100 * float(torch.stack(wrong).mean()), mean))
                losses.clear()
                wrong.clear()
    return mean


def _mean(losses: list[Tensor], step: int, recipe: Recipe) -> float:
    # read once an epoch: on a GPU every reading waits until the device has caught up
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise DivergedError(f"the training loss became {mean} within {step} steps at lr {recipe.lr:g}")
    return mean
