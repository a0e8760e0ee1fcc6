"""What batches are read from: tensors, a data set, a stream of samples, or the user's own batches.

A source can be read any number of times, and reads no more than is asked for.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from tune_prune.tasks.batches import (
    Batch,
    as_tensors,
    collate,
    convert_numbers,
    count_samples,
    count_steps,
    iterate_tensors,
    map_tensors,
)
from tune_prune.tasks.counting import check_repeatable, count_by_reading, find_length, find_sizes
from tune_prune.tasks.parts import Part


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
    """Tensors of any structure, whose first dimensions all count the samples.

    `mapped` says that they lie in files which memory may not hold as a whole: only the rows of a batch are read, and
    their numbers are converted then.
    """

    tensors: Batch
    mapped: bool = False

    @property
    def count(self) -> int:
        """The number of samples."""
        return count_samples(self.tensors)

    def steps(self, batch_size: int) -> int:
        """Counts the whole batches of an epoch, at least 1."""
        return count_steps(self.count, batch_size)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields so many rows each, as copies: a user's code may write to them, and several processes read them."""
        for first in range(0, self.count, batch_size):
            last = first + batch_size
            yield self._convert(map_tensors(self.tensors, lambda tensor: tensor[first:last].clone()))  # noqa: B023

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields random rows without repetition."""
        size = min(batch_size, self.count)
        order = torch.randperm(self.count, generator=generator)
        device = next(iterate_tensors(self.tensors)).device
        for step in range(self.steps(batch_size)):
            index = order[step * size : (step + 1) * size].to(device)
            yield self._convert(map_tensors(self.tensors, lambda tensor: tensor.index_select(0, index)))  # noqa: B023

    def _convert(self, batch: Batch) -> Batch:
        return map_tensors(batch, convert_numbers) if self.mapped else batch


@dataclass(frozen=True)
class Items:
    """A map-style data set; its samples are read anew in every epoch, with whatever they draw at random.

    Of a training epoch's batches only a `part` is read, where one is given.
    """

    dataset: Any
    part: Part | None = None

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(self.dataset)

    def steps(self, batch_size: int) -> int:
        """Counts the whole batches of an epoch, at least 1."""
        return count_steps(self.count, batch_size)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields collated samples in order."""
        return iter(DataLoader(self.dataset, batch_size, collate_fn=collate))

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields collated samples in random order."""
        order = torch.randperm(self.count, generator=generator).tolist()
        size = min(batch_size, self.count)
        batches = [order[at * size : (at + 1) * size] for at in range(self.steps(batch_size))]
        if self.part is not None:
            batches = [batch[self.part.rows(size)] for batch in batches]
        return iter(DataLoader(self.dataset, batch_sampler=batches, collate_fn=collate))


@dataclass(frozen=True)
class Stream:
    """An iterable data set of single samples, in the order in which it yields them; its samples are read anew."""

    dataset: Any
    count: int

    @classmethod
    def read(cls, dataset: Any, name: str, say: Callable[[str], None]) -> "Stream":
        """Counts samples, by reading all once where there is no length; raises a `UserError` as `Loader.read`."""
        check_repeatable(dataset, name)
        count = find_length(dataset)
        return cls(dataset, count_by_reading(dataset, name, say, lambda sample: 1)[1] if count is None else count)

    def steps(self, batch_size: int) -> int:
        """Counts the whole batches of an epoch, at least 1."""
        return count_steps(self.count, batch_size)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields collated samples."""
        return iter(DataLoader(self.dataset, batch_size, collate_fn=collate))

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields collated samples; an order that the data set draws at random follows from torch's own generator."""
        return iter(DataLoader(self.dataset, min(batch_size, self.count), collate_fn=collate, drop_last=True))


@dataclass(frozen=True)
class Loader:
    """An iterable of batches, such as a DataLoader; it decides the size and the order of its batches.

    `batches` and `count` are counted by reading it once where it has no length.
    """

    iterable: Iterable[Batch]
    batches: int
    count: int

    @classmethod
    def read(cls, iterable: Iterable[Batch], name: str, say: Callable[[str], None] = lambda line: None) -> "Loader":
        """Counts batches and samples; a `UserError` that names `name` where they cannot be read twice, or are none.

        `say` gets a line where they have to be read in order to be counted.
        """
        check_repeatable(iterable, name)
        known = find_sizes(iterable)
        return cls(
            iterable, *(known or count_by_reading(iterable, name, say, lambda batch: count_samples(as_tensors(batch))))
        )

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
