"""Training by a function of the user's in place of the loop: `fit(model, batches, steps, lr, after_step)`."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.common.seeding import derive_seed
from tune_prune.common.source_lines import describe_code
from tune_prune.tasks.batches import Batch
from tune_prune.tasks.random_states import seeded_generators
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.user_code import user_code
from tune_prune.training.optim import Recipe
from tune_prune.training.progress import step_done


class EpochBatches:
    """The batches of a training split, as a DataLoader has them: each iteration is an epoch, in a new random order."""

    def __init__(self, split: AnySplit, batch_size: int, generator: torch.Generator) -> None:
        self._split, self._generator = split, generator
        self.batch_size = batch_size

    def __len__(self) -> int:
        return self._split.steps(self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return islice(self._split.epoch(self.batch_size, self._generator), len(self))


class AfterStep:
    """Sets removed weights back to zero; `calls` counts how often it was called, about once in each of the `steps`."""

    def __init__(self, masks: Sequence[tuple[Tensor, Tensor]], steps: int) -> None:
        self._masks, self._steps, self.calls = masks, steps, 0

    def __call__(self, *ignored: object, **also: object) -> None:
        """To be called after every step of an optimizer; as a callback of a library it may get any arguments."""
        self.calls += 1
        for weight, mask in self._masks:  # one by one: a library may have moved some to another device
            weight.data.mul_(mask.to(weight.device))
        step_done(min(self.calls, self._steps), self._steps)


def fit_by_user(
    model: nn.Module,
    split: AnySplit,
    recipe: Recipe,
    generator: torch.Generator,
    masks: Sequence[tuple[Tensor, Tensor]] = (),
    teacher: nn.Module | None = None,
) -> float:
    """Trains in place by the user's function; returns the loss that this returns, else NaN.

    A parameter of the function that is called as a field of `Recipe` gets its value, and `teacher` the dense model.
    Raises a `UserError` where the function fails, or never calls `after_step` although weights were removed.
    """
    function, name = split.objective.fit_function, split.objective.name_of("fit")
    assert function is not None
    after_step, batches = AfterStep(masks, recipe.steps), EpochBatches(split, recipe.batch_size, generator)
    given = (model, batches, recipe.steps, recipe.lr, after_step)
    model.train()
    seed = derive_seed(generator.initial_seed(), 1)
    with seeded_generators(seed, split.device), user_code("fit", name, function):
        more = _choose_arguments(function, len(given), {**asdict(recipe), "teacher": teacher})
        returned = function(*given, **more)
    if masks and not after_step.calls:
        advice = "call it after every step of the optimizer, so that removed weights stay zero"
        raise UserError(f"{describe_code('fit', name, function)} never called after_step; {advice}")
    model.to(split.device).zero_grad()
    after_step()
    return float(returned) if isinstance(returned, int | float | Tensor) else math.nan


def _choose_arguments(function: Callable[..., Any], given: int, offered: Mapping[str, Any]) -> dict[str, Any]:
    """What is offered and the function names, after the arguments that it is given and beside those it is bound to."""
    bound = function.keywords if isinstance(function, partial) else {}
    unbound = function.func if isinstance(function, partial) else function
    names = list(inspect.signature(unbound).parameters)[given:]
    return {name: offered[name] for name in names if name in offered and name not in bound}
