"""Handles batches of any structure: a tensor, a tuple or list, or a mapping, whose parts may be such again."""

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError

Batch: TypeAlias = Any
"""Samples of any structure. A tensor's first dimension counts samples; a list inside a batch holds one entry each."""


def map_tensors(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """Applies a function to every tensor of a batch; what is no tensor stays as it is."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        mapped = copy.copy(batch) if isinstance(batch, MutableMapping) else dict(batch)
        for key, value in batch.items():
            mapped[key] = map_tensors(value, function)
        return mapped
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(part, function) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_tensors(part, function) for part in batch)
    return batch


def iterate_tensors(value: object) -> Iterator[Tensor]:
    """Yields every tensor of a batch, or of what a model returns, which may be a dataclass as well."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from iterate_tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from iterate_tensors(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from iterate_tensors(getattr(value, each.name))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Moves every tensor of a batch to a device; no copy is made where it is there already."""
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def count_samples(batch: Batch) -> int:
    """Counts the samples of a batch: the first dimension of its tensors, or the length of a list inside it."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if not isinstance(batch, tuple | list):
        return len(batch) if isinstance(batch, Tensor) and batch.dim() else 1
    for part in batch:
        if isinstance(part, Tensor) and part.dim():
            return len(part)
    first = batch[0] if batch else None
    return len(first) if isinstance(first, list) else count_samples(first)


def take_first(batch: Batch, count: int) -> Batch:
    """The first samples of a batch, where its tensors all have as many rows as it has samples; else the whole batch."""
    rows = count_samples(batch)
    tensors = list(iterate_tensors(batch))
    if rows <= count or not tensors or any(tensor.dim() == 0 or len(tensor) != rows for tensor in tensors):
        return batch
    return map_tensors(batch, lambda tensor: tensor[:count])


def split_batch(batch: Batch) -> tuple[Batch, Batch]:
    """Splits a batch into inputs and targets: a pair, or a mapping with `labels`, whose rest are the inputs.

    Several inputs come as a tuple; torch's own collation makes lists of tuples, which are told from lists of samples by
    their lengths. Raises a `UserError` for any other batch.
    """
    if isinstance(batch, Mapping) and "labels" in batch:
        return {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise UserError(
            f"a batch is a {type(batch).__name__}, not a pair (inputs, labels) nor a mapping with labels; "
            "name a function loss(model, batch)"
        )
    inputs, targets = batch
    if isinstance(inputs, list) and isinstance(targets, Tensor):
        rows = len(targets)
        if len(inputs) != rows or all(isinstance(part, Tensor) and part.dim() and len(part) == rows for part in inputs):
            inputs = tuple(inputs)
    return inputs, targets


def call_model(model: Callable[..., Any], inputs: Batch) -> Any:
    """Calls a model with inputs: a mapping as keyword arguments, a tuple as several arguments, else as one."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


class Call(NamedTuple):
    """A call of a model: its arguments, and what it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


@contextmanager
def record_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Records every call of a model in the block, so that others can be called alike."""
    calls: list[Call] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(Call(args, kwargs, output))

    hook = model.register_forward_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()
