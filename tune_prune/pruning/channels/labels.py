"""Labels: which channel each element of a tensor belongs to, and which channels were found to hang together.

A label is the number of a position along an axis of a parameter, such as an output of a layer. The labels of a tensor
lie in tensors of its own shape, int64, -1 where an element belongs to no channel. A tensor has several of them where
several of its axes count channels, as a weight's outputs and inputs. Axes along which labels do not vary are expanded,
so that they take no memory; what an operation does to a tensor's layout can therefore be done to its labels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NONE = -1
"""The label of elements that belong to no channel."""


def number_axis(first: int, shape: Sequence[int], axis: int) -> Tensor:
    """Labels a tensor's positions along an axis with consecutive numbers from `first` on."""
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return torch.arange(first, first + shape[axis]).view(view).expand(*shape)


def find_varying(labels: Tensor) -> list[int]:
    """The axes along which labels vary."""
    return [axis for axis, size in enumerate(labels.shape) if size > 1 and labels.stride(axis) != 0]


def simplify(labels: Tensor) -> Tensor | None:
    """Expands labels along the axes along which they are the same; None where no element has one."""
    for axis in find_varying(labels):
        first = labels.narrow(axis, 0, 1)
        if bool((labels == first).all()):
            labels = first.expand(labels.shape)
    return None if bool((_reduce(labels) == NONE).all()) else labels


def _reduce(labels: Tensor) -> Tensor:
    """The labels without repetition along the axes along which they do not vary."""
    for axis, size in enumerate(labels.shape):
        if size > 1 and labels.stride(axis) == 0:
            labels = labels.narrow(axis, 0, 1)
    return labels


class Constraints:
    """What was found about labels: pairs that hang together, and labels of positions that have to stay.

    `path` are the names of the modules that are running at the time, the innermost last; `operation` is set to the name
    of the operation that is. `norms` are the numbers of channels of modules that can compute over some of them alone,
    by the name of the module.
    """

    def __init__(self, path: Sequence[str] = ("",), norms: Mapping[str, int] | None = None) -> None:
        self._path, self._norms, self.operation = path, norms or {}, ""
        self._pairs: list[NDArray[np.int64]] = []
        self._wider: list[tuple[str, NDArray[np.int64], NDArray[np.int64]]] = []
        self._fixed: list[tuple[str, NDArray[np.int64]]] = []
        self._normalised: list[tuple[str, NDArray[np.int64]]] = []
        self._heads: list[NDArray[np.int64]] = []
        self._parts: list[tuple[str, tuple[NDArray[np.int64], ...]]] = []

    def fix(self, labels: Tensor) -> None:
        """The positions with these labels have to stay."""
        self._fixed.append((self._reason(), np.unique(_reduce(labels).numpy())))

    def _reason(self) -> str:
        where = f" in {self._path[-1]}" if self._path and self._path[-1] else ""
        return f"{self.operation.strip('_')}{where} needs all of them" if self.operation else "the model returns them"

    def normalise(self, labels: Tensor, axis: int) -> None:
        """A mean or a variance is computed over an axis; where no norm does so, the positions along it have to stay."""
        if self._path and self._norms.get(self._path[-1]) == labels.shape[axis]:
            self._normalised.append((self._path[-1], np.unique(_reduce(labels).numpy())))
        else:
            self.fix(labels)

    def mark_heads(self, labels: Tensor) -> None:
        """The positions with these labels lie in a batch of products, as the heads of an attention do."""
        self._heads.append(np.unique(_reduce(labels).numpy()))

    def note_parts(self, parts: Sequence[Tensor]) -> None:
        """The module that is running separates these channels, whose labels are vectors, by numbers of its own."""
        self._parts.append((self._path[-1] if self._path else "", tuple(part.numpy() for part in parts)))

    def fix_all(self, families: Iterable[Tensor]) -> None:
        """The positions with the labels of a tensor have to stay."""
        for labels in families:
            self.fix(labels)

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Positions with labels at the same place of two tensors, which are broadcast, go together or stay together.

        A position that stands beside an element without a label has to stay.
        """
        one, other = torch.broadcast_tensors(_reduce(one), _reduce(other))
        alone, pairs = _pair(one.numpy(), other.numpy())
        self._fixed.append((self._reason(), alone))
        self._pairs.append(pairs)

    def tie_if_alike(self, labels: Tensor, other: Tensor, axes: Iterable[int]) -> None:
        """Positions beside each other along some axes meet those of another tensor, which is broadcast along the rest.

        Where they hang together along the rest, each goes together with the other tensor's. Where they do not, as the
        heads of an attention, those along `axes` hang together, and the other tensor's stay.
        """
        wide = torch.broadcast_tensors(_reduce(labels), _reduce(other))
        axes = sorted(axes)
        last = list(range(-len(axes), 0))
        rows, vectors = (one.movedim(axes, last).flatten(-len(axes)).flatten(0, -2).numpy() for one in wide)
        self._wider.append((self._reason(), rows, vectors[0]))

    def tie_along(self, labels: Tensor, axis: int) -> Tensor:
        """Positions beside each other along an axis hang together; the labels of the first stand for all."""
        first = labels.narrow(axis, 0, 1)
        self.tie(first, labels)
        return first.expand(labels.shape)

    def restrict(self, labels: Tensor, axes: Iterable[int]) -> Tensor:
        """Makes labels vary along these axes alone, by tying them along all others; may leave no label at all."""
        for axis in set(find_varying(labels)) - set(axes):
            labels = self.tie_along(labels, axis)
        return labels

    def resolve(self, count: int) -> "Resolved":
        """Finds for each of `count` labels which others it hangs together with, and what holds for all of them."""
        root, all_pairs, all_fixed = _unite(self._pairs, count), list(self._pairs), list(self._fixed)
        for reason, rows, vector in self._wider:
            found = np.where(rows == NONE, NONE, root[rows])
            if (found == found[:1]).all():
                alone, pairs = _pair(rows[0], vector)
            else:
                all_fixed.append((reason, vector))
                alone, pairs = _pair(np.broadcast_to(rows[:, :1], rows.shape), rows)
            all_fixed.append((reason, alone))
            all_pairs.append(pairs)
        root = _unite(all_pairs, count) if self._wider else root
        norms = [(name, _find_roots(labels, root)) for name, labels in self._normalised]
        fixed = [(reason, _find_roots(labels, root)) for reason, labels in all_fixed if len(labels)]
        parts = [
            (name, [np.where(part == NONE, NONE, root[part]) for part in of_split]) for name, of_split in self._parts
        ]
        return Resolved(root, fixed, norms, _find_roots(np.concatenate([[NONE], *self._heads]), root), parts)


def _pair(one: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels that stand beside an element without one, and the pairs [n, 2] of the others."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()], 1), axis=0)
    alone = (pairs == NONE).any(1)
    return pairs[alone].ravel(), pairs[~alone]


def _unite(some: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """For each of `count` labels the lowest that pairs connect it with."""
    root = np.arange(count)
    pairs = np.unique(np.concatenate([np.empty((0, 2), np.int64), *some]), axis=0)
    while True:
        lowest = np.minimum(root[pairs[:, 0]], root[pairs[:, 1]])
        new = root.copy()
        for side in (0, 1):
            np.minimum.at(new, pairs[:, side], lowest)
            np.minimum.at(new, root[pairs[:, side]], lowest)
        new = new[new]
        if (new == root).all():
            return root
        root = new


def _find_roots(labels: NDArray[np.int64], root: NDArray[np.int64]) -> NDArray[np.int64]:
    """The lowest labels that these hang together with."""
    return np.unique(root[labels[labels != NONE]])


@dataclass(frozen=True)
class Resolved:
    """For each label the lowest that it hangs together with, its root.

    `fixed` are roots that have to stay, by a reason, `norms` those that a norm sees, by its name, and `heads`
    those of heads. `parts` are those that a module separates, by its name.
    """

    root: NDArray[np.int64]
    fixed: Sequence[tuple[str, NDArray[np.int64]]]
    norms: Sequence[tuple[str, NDArray[np.int64]]]
    heads: NDArray[np.int64]
    parts: Sequence[tuple[str, Sequence[NDArray[np.int64]]]] = ()

    @cached_property
    def _all_fixed(self) -> NDArray[np.int64]:
        return np.unique(np.concatenate([np.empty(0, np.int64), *(fixed for _, fixed in self.fixed)]))

    def find_free(self, roots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of these that can leave."""
        return roots[~np.isin(roots, self._all_fixed)]

    def why_fixed(self, roots: NDArray[np.int64]) -> str:
        """Why one of these has to stay; "" where none has."""
        return next((reason for reason, fixed in self.fixed if np.isin(fixed, roots).any()), "")

    def norms_of(self, roots: NDArray[np.int64]) -> list[str]:
        """The names of the norms that see one of these."""
        return list(dict.fromkeys(name for name, seen in self.norms if np.isin(seen, roots).any()))
