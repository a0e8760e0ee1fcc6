"""Trains a model of any task in place: the loop over batches that a split reads, by the split's own loss."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from tune_prune.common.seeding import derive_seed
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.random_states import seed_generators, seeded_generators
from tune_prune.training.optim import Optimizer, Recipe
from tune_prune.training.step import update


def fit_batches(
    model: nn.Module,
    split: BatchSplit,
    recipe: Recipe,
    generator: torch.Generator,
    optimizer: Optimizer,
    check: Callable[[list[Tensor], int], float],
    *,
    masks: Sequence[tuple[Tensor, Tensor]] = (),
    teacher: nn.Module | None = None,
    on_epoch: Callable[[int, Evaluation], None] | None = None,
    epochs_done: int = 0,
) -> float:
    """Trains as `fit` does, on batches that are read one at a time; `check` turns losses into their finite mean.

    `teacher` is the dense model: it runs along, on each batch once. `on_epoch` gets the mean loss of an epoch, and NaN
    for its metric, which only whole splits have.
    """
    objective, per_epoch = split.objective, recipe.steps_in(split.steps(recipe.batch_size))
    mean, losses = math.nan, list[Tensor]()
    if teacher is not None:
        teacher.eval()
    steps = _read_steps(split, recipe, generator, epochs_done * per_epoch)
    with seeded_generators(0, split.device):
        for done, batches in steps:
            for batch in batches:
                with use_precision(objective.settings.precision, split.device):
                    loss = objective.training_loss(
                        model, teacher, batch, recipe.distill, recipe.temperature, recipe.label_smoothing
                    )
                objective.check_gradient(loss)
                (loss if len(batches) == 1 else loss / len(batches)).backward()
                losses.append(loss.detach())
            update(optimizer, recipe, masks, recipe.lr_at(done - 1))
            if done % per_epoch == 0 or done == recipe.steps:
                mean = check(losses, done)
                losses.clear()
                if on_epoch is not None and done % per_epoch == 0:
                    on_epoch(done // per_epoch, Evaluation(math.nan, mean))
    return mean


def _read_steps(
    split: BatchSplit, recipe: Recipe, generator: torch.Generator, first_step: int
) -> Iterator[tuple[int, list[Batch]]]:
    """Yields (steps done with them, batches), epoch by epoch, after the first steps; each epoch has a seed of its own.

    An epoch ends after the number of batches that the split has said, so that epochs are of one length.
    """
    per_epoch, done = recipe.steps_in(split.steps(recipe.batch_size)), first_step
    while done < recipe.steps:
        # layers such as dropout, data sets and loaders draw from these
        seed_generators(derive_seed(generator.initial_seed(), done + 1))
        before, epoch = done, split.epoch(recipe.batch_size, generator)
        while done < min(recipe.steps, before + per_epoch) and (batches := list(islice(epoch, recipe.accumulate))):
            done += 1
            yield done, batches
        if done == before:
            raise RuntimeError(f"{split.name}: an epoch had no batch")
