"""What batches are read from: tensors in memory, a map-style data set, or the user's own batches.

A source can be read any number of times, and reads no more than is asked for.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from tune_prune.common.errors import UserError
from tune_prune.tasks.batches import Batch, count_samples, iterate_tensors, map_tensors
from tune_prune.tasks.user_code import user_code


class Source(Protocol):
    """What a split's batches come from; `count` is its number of samples."""

    @property
    def count(self) -> int:
        """The number of samples."""
        ...

    def steps(self, batch_size: int) -> int:
        """Counts the batches of a training epoch, at least 1."""
        ...

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields all samples once, in order."""
        ...

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields the batches of a training epoch, in an order that `generator` draws, without a last short batch."""
        ...


@dataclass(frozen=True)
class Rows:
    """Tensors in memory, of any structure, whose first dimensions all count the samples."""

    tensors: Batch

    @property
    def count(self) -> int:
        """The number of samples."""
        return count_samples(self.tensors)

    def steps(self, batch_size: int) -> int:
        """Counts the whole batches of an epoch, at least 1."""
        return max(1, self.count // batch_size)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields views of so many rows each."""
        for first in range(0, self.count, batch_size):
            yield map_tensors(self.tensors, lambda tensor: tensor[first : first + batch_size])  # noqa: B023

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields random rows without repetition."""
        size = min(batch_size, self.count)
        order = torch.randperm(self.count, generator=generator)
        device = next(iterate_tensors(self.tensors)).device
        for step in range(self.steps(batch_size)):
            index = order[step * size : (step + 1) * size].to(device)
            yield map_tensors(self.tensors, lambda tensor: tensor.index_select(0, index))  # noqa: B023


@dataclass(frozen=True)
class Items:
    """A map-style data set; its samples are read anew in every epoch, with whatever they draw at random."""

    dataset: Any

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(self.dataset)

    def steps(self, batch_size: int) -> int:
        """Counts the whole batches of an epoch, at least 1."""
        return max(1, self.count // batch_size)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields collated samples in order."""
        return iter(DataLoader(self.dataset, batch_size, collate_fn=collate))

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields collated samples in random order."""
        order = torch.randperm(self.count, generator=generator).tolist()
        size = min(batch_size, self.count)
        kept = order[: self.steps(batch_size) * size]
        return iter(DataLoader(self.dataset, size, sampler=kept, collate_fn=collate))


@dataclass(frozen=True)
class Loader:
    """An iterable of batches, such as a DataLoader; it decides the size and the order of its batches.

    `batches` and `count` are counted by reading it once where it has no length.
    """

    iterable: Iterable[Batch]
    batches: int
    count: int

    @classmethod
    def read(cls, iterable: Iterable[Batch], name: str) -> "Loader":
        """Counts batches and samples; a `UserError` that names `name` where they cannot be read twice, or are none."""
        if iter(iterable) is iterable:
            raise UserError(f"{name} can be iterated only once; give a DataLoader, a list, or a class with __iter__")
        dataset = getattr(iterable, "dataset", None)
        if isinstance(iterable, Sized) and isinstance(dataset, Dataset) and isinstance(dataset, Sized):
            batches, count = len(iterable), len(dataset)
        else:
            with seeded_generators(0), user_code("data", name):
                sizes = [count_samples(batch) for batch in iterable]
            batches, count = len(sizes), sum(sizes)
        if not count:
            raise UserError(f"{name} has no batch")
        return cls(iterable, batches, count)

    def steps(self, batch_size: int) -> int:
        """The number of its batches."""
        return self.batches

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields its batches."""
        return iter(self.iterable)

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields its batches; an order that they draw at random follows from torch's own generator."""
        return iter(self.iterable)


@dataclass(frozen=True)
class Kept:
    """Batches in memory: a sample."""

    kept: tuple[Batch, ...]

    @property
    def count(self) -> int:
        """The number of samples."""
        return sum(map(count_samples, self.kept))

    def steps(self, batch_size: int) -> int:
        """The number of its batches."""
        return len(self.kept)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields its batches."""
        return iter(self.kept)

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields its batches in random order."""
        return (self.kept[at] for at in torch.randperm(len(self.kept), generator=generator).tolist())


@dataclass(frozen=True)
class Joined:
    """Several sources one after the other; in a training epoch, in turn."""

    sources: tuple[Source, ...]

    @property
    def count(self) -> int:
        """The number of samples of all."""
        return sum(source.count for source in self.sources)

    def steps(self, batch_size: int) -> int:
        """Counts the batches of all."""
        return sum(source.steps(batch_size) for source in self.sources)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields the batches of each source."""
        return itertools.chain.from_iterable(source.in_order(batch_size) for source in self.sources)

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields the batches of all sources, each from a source that is drawn by how many it has left."""
        left = [source.steps(batch_size) for source in self.sources]
        readers = [source.shuffled(batch_size, generator) for source in self.sources]
        turns = torch.tensor([at for at, steps in enumerate(left) for _ in range(steps)])
        for at in turns[torch.randperm(len(turns), generator=generator)].tolist():
            yield next(readers[at])


@contextmanager
def seeded_generators(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds the generators that data sets draw from, torch's, NumPy's and Python's, and puts them back at the end.

    That of a GPU is among them where it is the `device`.
    """
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
            seed_generators(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def seed_generators(seed: int) -> None:
    """Seeds torch's, NumPy's and Python's own generators."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def collate(samples: list[Any]) -> Batch:
    """Stacks samples to a batch, as torch's `default_collate` does, but that tuples stay tuples."""
    first = samples[0]
    if isinstance(first, tuple) and not hasattr(first, "_fields"):
        return tuple(collate(list(parts)) for parts in zip(*samples, strict=True))
    if isinstance(first, Tensor) and any(sample.shape != first.shape for sample in samples):
        return samples
    return default_collate(samples)
