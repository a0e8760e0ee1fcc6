"""Counts the weights that are left where groups keep a share of their channels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.removal import OF_BLOCKS, count_left, name_weights
from tune_prune.pruning.masks import count_removed, shapes
from tune_prune.pruning.plan import WEIGHTS

BLOCK = -1
"""Stands for an axis along which a layer is as a whole in one block."""


@dataclass(frozen=True)
class LayerCount:
    """A layer's weights in all; and for each of its axes which share of its positions lists channels of which group."""

    total: int
    axes: Sequence[Mapping[str, float]]

    def left(self, kept: Mapping[str, float]) -> float:
        """The weights that are left where groups keep these shares of their channels; of others, all."""
        left = float(self.total)
        for axis in self.axes:
            left *= 1 - sum(share * (1 - kept.get(group, 1.0)) for group, share in axis.items())
        return left


@dataclass(frozen=True)
class ChannelCounts:
    """The weights of each layer by label, and the groups that decide how many are left, in the model's order.

    `groups` are the numbers of channels by the name of a group, or of blocks, for groups that are named in `blocks`;
    `staying` says why others stay, by the label of a layer or a block. `weights` are the layers whose weights have
    ratios beside those of groups, in a mixture.
    """

    groups: Mapping[str, int]
    layers: Mapping[str, LayerCount]
    staying: Mapping[str, str] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the ratios of single weights, where there are any."""
        return tuple(WEIGHTS + label for label in self.weights)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all ratios: the groups, then the layers of which weights have some."""
        return (*self.groups, *self.weight_names)

    @property
    def total(self) -> int:
        """All weights."""
        return sum(layer.total for layer in self.layers.values())

    def left(self, ratios: Mapping[str, float], multiple_of: int = 1, min_width: int = 1) -> float:
        """The weights that are left in all at these ratios: of whole channels, and of the weights that they leave."""
        least = {name: OF_BLOCKS if name in self.blocks else (multiple_of, min_width) for name in self.groups}
        kept = {
            name: count_left(count, ratios[name], *least[name]) / count
            for name, count in self.groups.items()
            if name in ratios
        }
        left = {label: layer.left(kept) for label, layer in self.layers.items()}
        shares = {label: ratios[WEIGHTS + label] for label in left if WEIGHTS + label in ratios}
        return sum(left.values()) - sum(count_removed(share, round(left[label])) for label, share in shares.items())

    def compression(self, ratios: Mapping[str, float], multiple_of: int = 1, min_width: int = 1) -> float:
        """The compression of the whole model that these ratios make."""
        return 1 - self.left(ratios, multiple_of, min_width) / self.total

    def describe(self) -> list[str]:
        """The groups of blocks with their numbers of blocks, and what stays, in lines."""
        lines = [f"{name}: {self.groups[name]} blocks of this kind" for name in self.blocks if self.groups[name] > 1]
        for label, why in self.staying.items():
            lines.append(f"{label}: {'its channels stay' if label in self.layers else 'stays'}; {why}")
        return lines

    def first_layer(self, name: str) -> str:
        """The label of the first layer that a ratio is of.

        It computes or reads channels of the group, or lies in one of its blocks, or it is the layer of the weights.
        """
        if name.startswith(WEIGHTS):
            return name.removeprefix(WEIGHTS)
        return next(label for label, layer in self.layers.items() if any(name in axis for axis in layer.axes))

    def touched(self, group: str) -> int:
        """The weights that compute or read channels of a group."""
        return sum(layer.total for layer in self.layers.values() if any(group in axis for axis in layer.axes))


def count_channels(
    model: nn.Module, groups: Sequence[Group], staying: Mapping[str, str] | None = None
) -> ChannelCounts:
    """Describes the weights of a model by the groups of its channels; `staying` is kept as it is."""
    weights = name_weights(model)
    axes: dict[str, dict[int, dict[str, float]]] = {}
    for group in groups:
        for member in group.members:
            for part in weights.get(member.tensor, ()):
                # a block leaves with all of its weights, whichever channels have left before
                axis = BLOCK if group.blocks else member.axis
                of_axis = axes.setdefault(part.label, {}).setdefault(axis, {})
                channels = part.select_along(member.channels, member.axis)
                of_axis[group.name] = float((channels >= 0).double().mean())
    layers = {
        label: LayerCount(math.prod(shape), tuple(axes.get(label, {}).values()))
        for label, shape in shapes(model).items()
    }
    blocks = tuple(group.name for group in groups if group.blocks)
    return ChannelCounts({group.name: group.count for group in groups}, layers, staying or {}, blocks)
