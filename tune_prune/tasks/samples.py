"""Takes samples out of batches of any structure."""

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tune_prune.common.errors import UserError
from tune_prune.tasks.batches import Batch, count_samples, describe_structure, iterate_tensors, map_tensors


class InseparableError(UserError):
    """A batch that cannot be taken apart; the message describes it."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(
            f"a batch, {describe_structure(batch)}, cannot be taken apart into samples; its tensors would all need a "
            "row, and its lists an entry, for each of them"
        )


def take_first(batch: Batch, count: int) -> Batch:
    """The first samples of a batch, where its tensors all have as many rows as it has samples; else the whole batch."""
    rows = count_samples(batch)
    tensors = list(iterate_tensors(batch))
    if rows <= count or not tensors or any(tensor.dim() == 0 or len(tensor) != rows for tensor in tensors):
        return batch
    return map_tensors(batch, lambda tensor: tensor[:count])


def join_batches(batches: Sequence[Batch]) -> list[Batch]:
    """Joins batches to one where they are tensors of equal rows, or tuples, lists or dictionaries of such.

    Any other batches are returned as they are, as those with a list of samples inside.
    """
    try:
        return [_join(batches, (dict, tuple, list))]
    except _UnlikeError:
        return list(batches)


class _UnlikeError(Exception):
    """Parts of batches that cannot be joined."""


def _join(parts: Sequence[Any], kinds: tuple[type, ...] = (dict, tuple)) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        if not first.dim() or any(part.shape[1:] != first.shape[1:] for part in parts):
            raise _UnlikeError
        return torch.cat(list(parts))
    if type(first) not in kinds or any(len(part) != len(first) for part in parts):
        raise _UnlikeError
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts]) for key in first}
    return type(first)(_join(along) for along in zip(*parts, strict=True))


def take_samples(batch: Batch, rows: slice | Sequence[int]) -> Batch:
    """The samples of a batch at some positions, as a batch of the same structure.

    Every tensor of it has a row and every list inside it an entry for each sample; numbers, texts and tensors without
    dimensions, which the batch has as a whole, stay. Raises an `InseparableError` for any other batch.
    """
    count = count_samples(batch)
    if count == 1 and any(True for _ in iterate_tensors(batch)):
        return batch
    parts = [*batch.values()] if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else []
    tensors = any(isinstance(part, Tensor) for part in parts)

    def has_rows(part: Any) -> bool:
        return isinstance(part, Tensor) and part.dim() > 0 and len(part) == count

    def take(part: Any, inside: bool) -> Any:
        if isinstance(part, Mapping):
            taken = copy.copy(part) if isinstance(part, MutableMapping) else dict(part)
            for key, value in part.items():
                taken[key] = take(value, True)
            return taken
        if has_rows(part):
            return part[rows if isinstance(rows, slice) else list(rows)]
        # a list of several inputs, as torch's collation makes of a tuple, is told from one of samples as in split_batch
        several = isinstance(part, tuple | list) and all(map(has_rows, part))
        if inside and isinstance(part, list) and len(part) == count and not (tensors and several):
            return part[rows] if isinstance(rows, slice) else [part[row] for row in rows]
        if isinstance(part, tuple | list) and (several or not inside or isinstance(part, tuple)):
            made = [take(one, True) for one in part]
            return type(part)(*made) if hasattr(part, "_fields") else type(part)(made)
        if part is None or isinstance(part, bool | int | float | str) or (isinstance(part, Tensor) and not part.dim()):
            return part
        raise InseparableError(batch)

    taken = take(batch, False)
    if taken is batch:
        raise InseparableError(batch)
    return taken
