"""Trains a model of any task in place: the loop over batches that a split reads, by the split's own loss."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from tune_prune.common.seeding import derive_seed
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch, count_samples
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.parts import Part
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.random_states import RandomStates, seed_generators, seeded_generators
from tune_prune.tasks.samples import take_samples
from tune_prune.tasks.sources import Items
from tune_prune.training.data_parallel import Replica
from tune_prune.training.optim import Optimizer, Recipe
from tune_prune.training.progress import step_done
from tune_prune.training.step import update

STACKED = 64
"""Losses that are stacked to one tensor: small ones that stay, among large ones that go, fragment the memory."""


def fit_batches(
    model: nn.Module,
    split: BatchSplit,
    recipe: Recipe,
    generator: torch.Generator,
    optimizer: Optimizer,
    check: Callable[[Tensor, int], float],
    *,
    masks: Sequence[tuple[Tensor, Tensor]] = (),
    teacher: nn.Module | None = None,
    on_epoch: Callable[[int, Evaluation], None] | None = None,
    epochs_done: int = 0,
    replica: Replica | None = None,
) -> float:
    """Trains as `fit` does, on batches that are read one at a time; `check` turns losses into their finite mean.

    `teacher` is the dense model: it runs along, on each batch once. `on_epoch` gets the mean loss of an epoch, and NaN
    for its metric, which only whole splits have. With a `replica`, steps compute this process's part of each batch.
    """
    objective, per_epoch = split.objective, recipe.steps_in(split.steps(recipe.batch_size))
    mean, losses, stacked = math.nan, list[Tensor](), list[Tensor]()
    if teacher is not None:
        teacher.eval()
    steps = _read_steps(split, recipe, generator, epochs_done * per_epoch, replica)
    with seeded_generators(0, split.device):
        for done, batches in steps:
            for batch, weight in batches:

                def compute(model: nn.Module, batch: Batch = batch) -> Tensor:
                    with use_precision(objective.settings.precision, split.device):
                        return objective.training_loss(
                            model, teacher, batch, recipe.distill, recipe.temperature, recipe.label_smoothing
                        )

                last = batch is batches[-1][0]
                loss = compute(model) if replica is None else replica.run(compute, synchronize=last)
                objective.check_gradient(loss)
                loss = loss if weight == 1 else weight * loss
                (loss if len(batches) == 1 else loss / len(batches)).backward()
                losses.append(loss.detach())
            update(optimizer, recipe, masks, recipe.lr_at(done - 1))
            step_done(done, recipe.steps)
            if done % per_epoch == 0 or done == recipe.steps:
                mean = check(torch.cat([*stacked, torch.stack(losses)]), done)
                losses.clear()
                stacked.clear()
                if on_epoch is not None and done % per_epoch == 0:
                    on_epoch(done // per_epoch, Evaluation(math.nan, mean))
            elif len(losses) >= STACKED:
                stacked.append(torch.stack(losses))
                losses.clear()
    return mean


def _read_steps(
    split: BatchSplit, recipe: Recipe, generator: torch.Generator, first_step: int, replica: Replica | None = None
) -> Iterator[tuple[int, list[tuple[Batch, float]]]]:
    """Yields (steps done with them, batches with their weights), epoch by epoch, after the first steps.

    Each epoch has a seed of its own. It ends after the number of batches that the split has said, so that epochs are of
    one length.
    """
    per_epoch, done = recipe.steps_in(split.steps(recipe.batch_size)), first_step
    while done < recipe.steps:
        before, epoch = done, _read_epoch(split, recipe, generator, done, replica)
        while done < min(recipe.steps, before + per_epoch) and (batches := list(islice(epoch, recipe.accumulate))):
            done += 1
            yield done, batches
        if done == before:
            raise RuntimeError(f"{split.name}: an epoch had no batch")


def _read_epoch(
    split: BatchSplit, recipe: Recipe, generator: torch.Generator, done: int, replica: Replica | None
) -> Iterator[tuple[Batch, float]]:
    """Yields the batches of the epoch that begins after so many steps, with the weights of their losses.

    Layers such as dropout, data sets and loaders draw from the global generators. Where several processes train
    together, those that batches are read with are alike in all of them, and the others are each process's own.
    """
    seed = derive_seed(generator.initial_seed(), done + 1)
    if replica is None:
        seed_generators(seed)
        return ((batch, 1.0) for batch in split.epoch(recipe.batch_size, generator))
    seed_generators(derive_seed(seed, replica.part.rank))
    return _read_parts(split, recipe.batch_size, generator, replica.part, RandomStates(seed))


def _read_parts(
    split: BatchSplit, batch_size: int, generator: torch.Generator, part: Part, states: RandomStates
) -> Iterator[tuple[Batch, float]]:
    """Yields a process's part of each batch of a training epoch, with its weight in the batch's mean.

    Of a data set, only the part's samples are read. Anything else is read whole by every process, whose `states` are
    alike, so that all draw the same batches.
    """
    if isinstance(split.source, Items):
        own, weight = replace(split.source, part=part), part.weight(min(batch_size, split.count))
        yield from ((batch, weight) for batch in replace(split, source=own).epoch(batch_size, generator))
        return
    epoch = split.epoch(batch_size, generator)
    while True:
        with states.active():
            batch = next(epoch, None)
        if batch is None:
            return
        count = count_samples(batch)
        yield take_samples(batch, part.rows(count)), part.weight(count)
