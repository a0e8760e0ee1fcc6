"""Trains a model of any task in place: the loop over batches that a split reads, by the split's own loss."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from tune_prune.common.seeding import derive_seed
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch
from tune_prune.tasks.metrics import Evaluation
from tune_prune.training.optim import SGD, Recipe
from tune_prune.training.step import add_l1


def fit_batches(
    model: nn.Module,
    split: BatchSplit,
    recipe: Recipe,
    generator: torch.Generator,
    optimizer: SGD,
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
    per_epoch = split.steps(recipe.batch_size)
    mean, losses = math.nan, list[Tensor]()
    if teacher is not None:
        teacher.eval()
    steps = _count_steps(split, recipe, generator, epochs_done * per_epoch)
    with torch.random.fork_rng([split.device] if split.device.type == "cuda" else []):
        for done, batch in steps:
            loss = split.objective.training_loss(model, teacher, batch, recipe.distill, recipe.temperature)
            split.objective.check_gradient(loss)
            loss.backward()
            if recipe.l1:
                add_l1(optimizer.parameters, recipe.l1)
            optimizer.step(recipe.lr_at(done - 1))
            if masks:
                torch._foreach_mul_([weight.data for weight, _ in masks], [mask for _, mask in masks])
            losses.append(loss.detach())
            if done % per_epoch == 0 or done == recipe.steps:
                mean = check(losses, done)
                losses.clear()
                if on_epoch is not None and done % per_epoch == 0:
                    on_epoch(done // per_epoch, Evaluation(math.nan, mean))
    return mean


def _count_steps(
    split: BatchSplit, recipe: Recipe, generator: torch.Generator, first_step: int
) -> Iterator[tuple[int, Batch]]:
    """Yields (steps done with it, batch), epoch by epoch, after the first steps; each epoch has a seed of its own.

    An epoch ends after the number of batches that the split has said, so that epochs are of one length.
    """
    per_epoch, done = split.steps(recipe.batch_size), first_step
    while done < recipe.steps:
        # layers such as dropout, data sets and loaders draw from torch's own generator
        torch.manual_seed(derive_seed(generator.initial_seed(), done + 1))
        before = done
        for batch in split.epoch(recipe.batch_size, generator):
            done += 1
            yield done, batch
            if done == recipe.steps or done - before == per_epoch:
                break
        if done == before:
            raise RuntimeError(f"{split.name}: an epoch had no batch")
