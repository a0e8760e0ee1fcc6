"""Groups of channels: what has to leave together with a channel of a layer, in all layers that compute or read it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Member:
    """An axis of a parameter or buffer that lists channels of a group.

    `channels` int64 [size of the axis] gives the channel of each position, -1 for one of another group or none.
    `role`: "output" where a layer that can be pruned computes them, "depthwise" where it computes each of them from the
    same one before, "input" where it reads them, "block" where the tensor belongs to a block, else "other", as for
    biases and norms.
    """

    tensor: str
    axis: int
    channels: Tensor
    role: str = "other"


@dataclass(frozen=True)
class HeldNumber:
    """A number that a module's code holds, and that falls by one for each entry of `channels` whose channel leaves.

    `attribute` is the name of the module's attribute, followed by a point and a place where it is a tuple or a list.
    """

    module: str
    attribute: str
    channels: Tensor


@dataclass(frozen=True)
class Group:
    """So many channels that have one ratio, and all axes of parameters and buffers that list them.

    A channel may stand for several outputs that have to leave together, as those of an attention head. `name` is the
    label of the first layer that computes them. `norms` are the names of the norms that read them. In a group of
    heads each channel is a head of an attention. In a group of blocks each is a block, to which all of its parameters
    belong; `blocks` are the names of their modules, and `name` is the first one's label. They return a tuple of so many
    `items`, or with 0 a tensor. `held` are numbers in the model's code that change with the channels.
    """

    name: str
    count: int
    members: tuple[Member, ...]
    norms: tuple[str, ...] = ()
    are_heads: bool = False
    blocks: tuple[str, ...] = ()
    items: int = 0
    held: tuple[HeldNumber, ...] = ()

    def in_norm(self, name: str) -> Tensor:
        """The channel of each position of the norm of this name, as a member has them."""
        return next(member.channels for member in self.members if member.tensor.rpartition(".")[0] == name)

    def keep(self, kept: Tensor) -> "Group":
        """The group after channels have left: `kept` is bool [count]."""
        numbers = (kept.cumsum(0) - 1).masked_fill(~kept, -1)
        members = tuple(replace(m, channels=torch.where(m.channels < 0, -1, numbers[m.channels])) for m in self.members)
        if self.blocks:  # whose tensors have left as a whole
            members = tuple(member for member in members if int(member.channels[0]) >= 0)
        blocks = tuple(name for name, keep in zip(self.blocks, kept.tolist(), strict=False) if keep)
        held = tuple(replace(number, channels=numbers[number.channels[kept[number.channels]]]) for number in self.held)
        return replace(self, count=int(kept.sum()), members=members, blocks=blocks, held=held)


@dataclass(frozen=True)
class ModelChannels:
    """The groups of channels of a model that can be removed, and why others have to stay, by the label of a layer."""

    groups: list[Group]
    staying: dict[str, str]
