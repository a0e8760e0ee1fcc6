"""Handles batches of any structure: a tensor, a tuple or list, or a mapping, whose parts may be such again."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from tune_prune.common.errors import UserError

Batch: TypeAlias = Any
"""Samples of any structure. A tensor's first dimension counts samples; a list inside a batch holds one entry each."""


def map_leaves(batch: Batch, function: Callable[[Any], Any]) -> Batch:
    """Applies a function to every part of a batch that is no tuple, list or mapping."""
    if isinstance(batch, Mapping):
        mapped = copy.copy(batch) if isinstance(batch, MutableMapping) else dict(batch)
        for key, value in batch.items():
            mapped[key] = map_leaves(value, function)
        return mapped
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_leaves(part, function) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_leaves(part, function) for part in batch)
    return function(batch)


def map_tensors(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """Applies a function to every tensor of a batch; what is no tensor stays as it is."""
    return map_leaves(batch, lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf)


def as_tensors(batch: Batch, convert: bool = True) -> Batch:
    """Makes tensors of NumPy's arrays of numbers, over the same memory.

    With `convert`, numbers of double precision, NumPy's default, become float32, in which models compute, and integers
    of types that embeddings do not take int64.
    """

    def to_tensor(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray | np.generic) or leaf.dtype.kind not in "biufc":
            return leaf
        array = np.asarray(leaf)
        if not array.dtype.isnative or any(stride < 0 for stride in array.strides):  # which torch does not know
            array = array.astype(array.dtype.newbyteorder("="), order="C")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            tensor = torch.from_numpy(array)
        return convert_numbers(tensor) if convert else tensor

    return map_leaves(batch, to_tensor)


_TO_INT64 = (torch.int8, torch.int16, torch.uint16, torch.uint32, torch.uint64)


def convert_numbers(tensor: Tensor) -> Tensor:
    """Converts numbers of NumPy's types to those that models compute in; others stay as they are."""
    if tensor.dtype == torch.float64:
        return tensor.float()
    return tensor.long() if tensor.dtype in _TO_INT64 else tensor


def describe_structure(batch: Batch) -> str:
    """The structure of a batch as text: "(tensor, [...])", where lists inside a batch have an entry for each sample."""
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {_describe_part(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, tuple | list):
        return "(" + ", ".join(map(_describe_part, batch)) + ")"
    return _describe_part(batch)


def _describe_part(part: object) -> str:
    if isinstance(part, list):
        return "[...]"
    if isinstance(part, Mapping | tuple):
        return describe_structure(part)
    return "tensor" if isinstance(part, Tensor) else type(part).__name__


def collate(samples: list[Any]) -> Batch:
    """Stacks samples to a batch, as torch's `default_collate` does, but that tuples stay tuples.

    Tensors of different shapes, as images of several sizes, become a list with an entry for each sample. Lists of
    numbers are rows of a tensor. Python's and NumPy's floats become float32.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple) and not hasattr(first, "_fields"):
        return tuple(collate(list(parts)) for parts in zip(*samples, strict=True))
    if isinstance(first, np.ndarray):
        samples = as_tensors(samples)
        first = samples[0]
    if isinstance(first, Tensor):
        return samples if any(sample.shape != first.shape for sample in samples) else default_collate(samples)
    if isinstance(first, float) or (isinstance(first, list) and _are_numbers(samples)):
        return as_tensors(np.array(samples))
    return default_collate(samples)


def _are_numbers(samples: list[Any]) -> bool:
    equal = all(isinstance(sample, list) and len(sample) == len(samples[0]) for sample in samples)
    return equal and all(isinstance(number, int | float) for sample in samples for number in sample)


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


def as_float(inputs: Tensor, scale: float = 255.0) -> Tensor:
    """Converts inputs to what a model takes: bytes to float32 divided by `scale`; floats unchanged."""
    return inputs.float().div_(scale) if inputs.dtype == torch.uint8 else inputs


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


def count_steps(samples: int, batch_size: int) -> int:
    """Counts the whole batches in one pass over samples; 1 where there are fewer than a batch holds."""
    return max(1, samples // batch_size)


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
