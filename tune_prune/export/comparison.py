"""Compares a model with the file that it was written to: both get the inputs of the same batches, one at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, describe_error
from tune_prune.pruning.channels.tracer import as_batch
from tune_prune.tasks.batches import Batch, call_model, iterate_tensors, record_calls, split_batch
from tune_prune.tasks.outputs import Difference, find_logits, find_scores
from tune_prune.tasks.random_states import seeded_generators
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.user_code import user_code


class FileError(Exception):
    """A file fails on inputs that its model takes."""


@torch.no_grad()
def find_inputs(model: nn.Module, split: AnySplit) -> Callable[[], Iterator[Batch]]:
    """Finds how a model is called on a split: a function that yields its inputs, as `call_model` takes them, by batch.

    They are the inputs of pairs and of mappings with labels, where the model takes these alone; else what the loss
    calls the model with. Raises a `UserError` where it calls it with nothing.
    """
    model.eval()
    try:
        call_model(model, _take_inputs(next(iter(split.head(2).batches(2)))))
    except Exception as error:  # a user's model may raise anything, and a user's batch may be anything
        reason = describe_error(error)
        return lambda: (_record_inputs(model, split, batch, reason) for batch in split.batches())
    return lambda: map(_take_inputs, split.batches())


def _take_inputs(batch: Batch) -> Batch:
    return split_batch(batch)[0]


@torch.no_grad()
def _record_inputs(model: nn.Module, split: AnySplit, batch: Batch, reason: str) -> Batch:
    """What the loss calls the model with, the first time; `reason` says why the model does not take the inputs."""
    with record_calls(model.eval()) as calls:
        split.loss(model, batch)
    model.eval()
    if not calls:
        raise UserError(f"the loss does not call the model itself, and it does not take inputs alone ({reason})")
    return as_batch(model, calls[0])


def find_varying_axes(batches: Iterable[Batch]) -> list[set[int]]:
    """The axes, but for the first, in which each tensor of the inputs differs in size from batch to batch."""
    shapes = [[tensor.shape for tensor in iterate_tensors(inputs)] for inputs in batches]
    return [_find_varying(of_one) for of_one in zip(*shapes, strict=False)]


def _find_varying(shapes: Sequence[torch.Size]) -> set[int]:
    shared = min(map(len, shapes))
    return {axis for axis in range(1, shared) if len({shape[axis] for shape in shapes}) > 1}


@dataclass(frozen=True)
class Comparison:
    """How far the outputs of a model and its file lie apart, as a share of the largest value of a tensor.

    `agree` counts the samples of which all predicted classes are the same; None where outputs are not classes.
    """

    max_difference: float
    agree: int | None


@torch.no_grad()
def compare(
    model: nn.Module, loaded: Callable[..., object], batches: Iterable[Batch], name: str, *, classes: bool
) -> Comparison:
    """Runs a model and its file on the inputs of all batches; with `classes`, outputs are class scores.

    Raises a `UserError` where the model called `name` fails, and `FileError` where the file alone does.
    """
    difference, agree = Difference(), 0
    for inputs in batches:
        with user_code("model", name, model.forward), seeded_generators(0):
            output = call_model(model, inputs)
        try:
            with seeded_generators(0):  # a model may draw at random, also in evaluation mode
                again = call_model(loaded, inputs)
        except Exception as error:  # any runtime's
            raise FileError(f"fails on the model's inputs ({describe_error(error)})") from error
        before, after = list(iterate_tensors(output)), list(iterate_tensors(again))
        if not before:
            raise UserError(f"model {name!r} returns {type(output).__name__} without tensors, which cannot be compared")
        difference.add(before, after)
        if classes and len(before) == len(after):
            agree += _count_same(output, before, after)
    return Comparison(difference.share, agree if classes else None)


def _count_same(output: object, before: list[Tensor], after: list[Tensor]) -> int:
    """Counts the samples for which the highest class scores are of the same classes."""
    axis, scores = (-1 if find_logits(output) is not None else 1), find_scores(output)
    at = next(at for at, tensor in enumerate(before) if tensor is scores)
    same = before[at].argmax(axis) == after[at].argmax(axis)
    return int(same.reshape(len(same), -1).all(1).sum())
