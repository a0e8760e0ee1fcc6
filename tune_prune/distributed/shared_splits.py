"""Data that workers of a machine share: splits in memory by Ray's object store, arrays in files by the files."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from ray.util import register_serializer
from torch import Tensor

from tune_prune.tasks.augment import load_augment
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch, map_leaves
from tune_prune.tasks.mapped_arrays import MappedArray, open_array
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Rows
from tune_prune.tasks.splits import AnySplit, Split


@dataclass(frozen=True)
class SharedSplit:
    """The rows of a split as arrays [n, ...], in the structure of a batch; `is_pairs` says that it was a `Split`."""

    rows: Batch
    nbytes: int
    scale: float
    is_pairs: bool
    name: str = ""

    @classmethod
    def share(cls, split: AnySplit) -> "SharedSplit | None":
        """Makes one of a split; None where it is not in memory, or NumPy lacks the type of some part."""
        if isinstance(split, Split):
            tensors, name = (split.inputs, split.labels), ""
        elif isinstance(split.source, Rows) and not split.source.mapped:
            tensors, name = split.source.tensors, split.name
        else:
            return None
        sizes = list[int | None]()
        map_leaves(tensors, lambda leaf: sizes.append(_count_bytes(leaf)))
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        return cls(
            map_leaves(tensors, lambda tensor: tensor.detach().numpy()),
            sum(known),
            split.scale,
            isinstance(split, Split),
            name,
        )

    def open(self, settings: TaskSettings, *, training: bool) -> AnySplit:
        """Makes the split again, of the task that `settings` describe; its tensors are views of the arrays."""
        rows, objective = map_leaves(self.rows, as_view), make_objective(settings)
        if self.is_pairs:
            inputs, labels = rows
            return Split(inputs, labels, self.scale, objective)
        augment = load_augment(settings.augment) if training else None
        return BatchSplit(Rows(rows), objective, self.name, scale=self.scale, augment=augment)


def send_places_of_mapped_arrays() -> None:
    """Makes Ray send where an array of `np.memmap` lies in its file; else the whole array goes to the object store."""
    register_serializer(np.memmap, serializer=MappedArray.find, deserializer=open_array)


def as_view(array: np.ndarray) -> Tensor:
    """A tensor over an array without a copy. The store's memory is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _count_bytes(leaf: object) -> int | None:
    """The size of a tensor; None where a leaf is none, or has a type that NumPy lacks."""
    return leaf.nbytes if isinstance(leaf, Tensor) and leaf.dtype != torch.bfloat16 else None
