"""Moves what a constant channel adds to its readers into their biases."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_prune.export.resizing import is_resizable
from tune_prune.pruning.channels.groups import Group, Member
from tune_prune.pruning.channels.slicing import set_tensor
from tune_prune.pruning.channels.tracer import find_owner
from tune_prune.pruning.layers import TRANSPOSED
from tune_prune.tasks.batches import Batch, call_model


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels of a group: where they lie in its weight, and what it read of a few samples.

    Of `values`, the channels are the last axis for a linear layer, and the second for any other.
    """

    member: Member
    module: nn.Module
    values: Tensor

    @property
    def _is_linear(self) -> bool:
        return isinstance(self.module, nn.Linear)

    def _read(self, index: int) -> Tensor:
        """What was read of a channel: [everything else, positions of the channel in the weight]."""
        positions = (self.member.channels == index).nonzero().flatten()
        if self._is_linear:
            return self.values[..., positions].reshape(-1, len(positions))
        groups = int(self.module.groups)  # type: ignore[arg-type]
        inputs = self.values.shape[1] // groups
        everywhere = torch.cat([positions + inputs * group for group in range(groups)])
        return self.values[:, everywhere].movedim(1, -1).reshape(-1, len(everywhere))

    def can_fold(self, index: int) -> bool:
        """Whether a channel adds the same to the layer's outputs for all samples, at every position."""
        read = self._read(index)
        if not read.any():
            return True
        if self._is_linear:
            return bool((read == read[0]).all())
        padding = self.module.padding
        is_padded = padding != "valid" if isinstance(padding, str) else any(padding)  # type: ignore[arg-type]
        is_plain = not is_padded and self.module.groups == 1 and not isinstance(self.module, TRANSPOSED)
        return bool(is_plain and (read == read[0]).all())

    def fold(self, index: int) -> None:
        """Adds what a channel adds to the layer's bias, and reads it no more; without a bias, the layer gets one."""
        read, weight = self._read(index), self.module.get_parameter("weight")
        positions = (self.member.channels == index).nonzero().flatten().to(weight.device)
        if read.any():
            of_channel = weight.index_select(self.member.axis, positions)
            added = of_channel.reshape(len(weight), len(positions), -1).sum(2) @ read[0]
            bias: Tensor | None = self.module.bias  # type: ignore[assignment]
            set_tensor(self.module, "bias", added if bias is None else bias + added)
        weight.index_fill_(self.member.axis, positions, 0)


def find_readers(model: nn.Module, group: Group, inputs: Batch) -> list[Reader | None]:
    """Runs a model on samples and notes what the readers of a group read.

    None stands for one whose reading is not known: a weight that is shared, or used by other code than its layer's.
    """
    named = list(model.named_parameters(remove_duplicate=False))
    uses = Counter(id(parameter) for _, parameter in named)
    ids = {name: id(parameter) for name, parameter in named}
    members = [member for member in group.members if member.role == "input"]
    modules = {member.tensor: find_owner(model, member.tensor) for member in members}
    read: dict[nn.Module, list[Tensor]] = {module: [] for module in modules.values()}
    hooks = [module.register_forward_pre_hook(lambda module, args: read[module].append(args[0])) for module in read]
    call_model(model, inputs)
    for hook in hooks:
        hook.remove()
    found: list[Reader | None] = []
    for member in members:
        module = modules[member.tensor]
        is_known = is_resizable(module) and uses[ids[member.tensor]] == 1 and len(read[module]) == 1
        found.append(Reader(member, module, read[module][0]) if is_known else None)
    return found
