"""Records what a model returns for samples, and returns it again: a metric is measured of other selections of them."""

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch, count_samples, iterate_tensors
from tune_prune.tasks.samples import join_batches, take_samples

MEMORY = 2**31
"""The most bytes that the samples, or the outputs of the model for them, may take."""


class CannotReplayError(UserError):
    """A metric cannot be measured by outputs that are recorded."""


@dataclass(frozen=True)
class Unit:
    """Samples that are drawn together: their batches, and what the model has returned for these, call by call."""

    batches: list[Batch]
    outputs: list[Any] = field(default_factory=list)


@dataclass
class Replay:
    """Which unit a metric has reached; `is_lost` where it calls the model more often than it did for the unit."""

    units: Sequence[Unit]
    is_recording: bool = True
    is_lost: bool = False
    bytes: int = 0
    unit: Unit | None = None
    at: int = 0

    def batches(self, units: Sequence[int]) -> Iterator[Batch]:
        """Yields the batches of units in turn."""
        for number in units:
            self.unit, self.at = self.units[number], 0
            yield from self.unit.batches

    def record(self, output: Any) -> Any:
        """Keeps what the model has returned, and returns it."""
        assert self.unit is not None
        self.bytes += sum(tensor.nbytes for tensor in iterate_tensors(output))
        _check_memory(self.bytes)
        self.unit.outputs.append(copy.deepcopy(output))  # which the metric may write into
        return output

    def next_output(self) -> Any:
        """What the model has returned at this place of the unit."""
        if self.unit is None or self.at >= len(self.unit.outputs):
            self.is_lost = True
            raise CannotReplayError("the model was not called here before")
        self.at += 1
        return copy.deepcopy(self.unit.outputs[self.at - 1])


@contextmanager
def replaying(model: nn.Module, units: Sequence[Unit]) -> Iterator[Replay]:
    """In the block the model's calls are recorded, and then answered from the record."""
    replay, forward = Replay(units), model.forward

    def call(*args: Any, **kwargs: Any) -> Any:
        return replay.record(forward(*args, **kwargs)) if replay.is_recording else replay.next_output()

    model.forward = call
    try:
        yield replay
    finally:
        del model.forward  # the method of its class is found again


def deal_units(split: BatchSplit, chosen: Sequence[int], count: int) -> list[Unit]:
    """Deals the chosen samples of a split, a multiple of `count`, out at random to so many units, as many to each."""
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(1)).tolist()
    unit_of = {chosen[place]: at % count for at, place in enumerate(order)}
    parts: list[list[Batch]] = [[] for _ in range(count)]
    first = size = 0
    for batch in split.batches():
        rows: dict[int, list[int]] = defaultdict(list)
        for row in range(count_samples(batch)):
            if first + row in unit_of:
                rows[unit_of[first + row]].append(row)
        for at, own in rows.items():
            parts[at].append(take_samples(batch, own))
            size += sum(tensor.nbytes for tensor in iterate_tensors(parts[at][-1]))
            _check_memory(size)
        first += count_samples(batch)
    return [Unit(join_batches(batches)) for batches in parts]


def _check_memory(size: int) -> None:
    if size > MEMORY:
        raise CannotReplayError(f"its samples and the outputs for them take more than {MEMORY / 2**30:g} GiB")
