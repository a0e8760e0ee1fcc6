"""Removes channels whose weights are all zero or that nothing reads: a smaller dense network from a sparse one.

The output of a channel without weights is a constant; what it adds to its readers moves into their biases. A channel
for which no reader has a weight is dropped. Its group says what leaves with it (`pruning.channels`). The smaller
network computes the same outputs, up to rounding.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tune_prune.common.errors import describe_error
from tune_prune.common.source_lines import find_failure
from tune_prune.export.folding import find_readers
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.blocks import find_blocks, find_kept_blocks
from tune_prune.pruning.channels.finding import find_channels, find_groups
from tune_prune.pruning.channels.groups import Group, ModelChannels
from tune_prune.pruning.channels.norms import kept_in_norm
from tune_prune.pruning.channels.removal import sum_by_channel
from tune_prune.pruning.channels.slicing import narrowed, remove_channels
from tune_prune.pruning.channels.tracer import named_tensors
from tune_prune.pruning.granularity import BLOCK, BLOCK_CHANNEL, CHANNEL
from tune_prune.tasks.batches import Batch, call_model
from tune_prune.tasks.outputs import ROUNDING, differ

BROKEN = "the code of the model does not work with fewer of them"
CHANGED = "the model computes something else without them"
"""Why channels stay that could leave by what was seen of the model."""


@torch.no_grad()
def find_removable(model: nn.Module, inputs: Batch, granularity: str = CHANNEL) -> ModelChannels:
    """Finds the groups of which channels or blocks can be removed: the model's code works with fewer, its outputs stay.

    `inputs` are a few samples, as `call_model` takes them. Half of the channels, at random places, are removed for it,
    and nine of ten blocks. Raises a `UserError` where the model branches on data and channels are to go.
    """
    if granularity == BLOCK_CHANNEL:
        blocks, channels = (find_removable(model, inputs, one) for one in (BLOCK, CHANNEL))
        return ModelChannels(blocks.groups + channels.groups, blocks.staying | channels.staying)
    model = copy.deepcopy(model).eval()
    found = find_blocks(model, inputs) if granularity == BLOCK else find_channels(model, inputs, granularity)
    working = _choose_working(found.groups, lambda groups: _why_not_half(model, inputs, groups))
    return ModelChannels(working.groups, found.staying | working.staying)


def _choose_working(groups: Sequence[Group], why_not: Callable[[Sequence[Group]], str]) -> ModelChannels:
    """Leaves out the groups that keep the others from working; halves are tried before single ones.

    `why_not` says why groups cannot be removed together, "" where they can.
    """
    reason = why_not(groups) if groups else ""
    if not reason:
        return ModelChannels(list(groups), {})
    if len(groups) == 1:
        return ModelChannels([], {groups[0].name: reason})
    middle = len(groups) // 2
    first, second = _choose_working(groups[:middle], why_not), _choose_working(groups[middle:], why_not)
    chosen, staying = first.groups + second.groups, first.staying | second.staying
    while chosen and (reason := why_not(chosen)):  # each half works by itself, and both together do not
        staying[chosen.pop().name] = reason
    return ModelChannels(chosen, staying)


def _why_not_half(model: nn.Module, inputs: Batch, groups: Sequence[Group]) -> str:
    """Why half of the channels, or nine of ten blocks, of these groups cannot be removed; "" where they can."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    ratios = {group.name: 0.9 if group.blocks else 0.5 for group in groups}
    removal.mask_at_random(model, groups, ratios, generator)
    made = _try_without(model, inputs, groups)
    return made if isinstance(made, str) else ""


@torch.no_grad()
def compact(model: nn.Module, inputs: Batch) -> nn.Module:
    """Copies a model for inference alone, without the channels that can go, and without blocks that are zero.

    `inputs` are a few samples, as `call_model` takes them. A group stays whole where the model's code does not work
    with fewer channels of it, as where it holds a number of channels. The outputs of copy and model for `inputs` differ
    by no more than `ROUNDING`. Raises a `UserError` where the model branches on data.
    """
    model = _without_empty_blocks(copy.deepcopy(model).eval().requires_grad_(False), inputs)
    made: list[nn.Module] = []

    def why_not(groups: Sequence[Group]) -> str:
        smaller = _try_without(model, inputs, groups)
        made[:] = [] if isinstance(smaller, str) else [smaller]
        return smaller if isinstance(smaller, str) else ""

    chosen = _choose_working(find_groups(model, inputs), why_not).groups
    return made[0] if chosen and made else model


def _without_empty_blocks(model: nn.Module, inputs: Batch) -> nn.Module:
    """The model without blocks whose parameters are all zero; the model itself where its code needs them."""
    empty = {id(one) for one in model.parameters() if not bool(one.any())}
    owned = [{id(one) for one in part.parameters()} for part in model.modules()] if empty else []
    if not any(own and own <= empty for own in owned):
        return model
    made = _try_without(model, inputs, find_blocks(model, inputs).groups)
    return model if isinstance(made, str) else made


def shrink(model: nn.Module, masks: Mapping[str, Tensor], inputs: Batch, groups: Sequence[Group] = ()) -> nn.Module:
    """The network for inference that is left of a model with these masks.

    Without the channels of `groups` that are gone, where channels were pruned; else as `compact` makes it.
    """
    if not groups:
        return compact(model, inputs)
    with narrowed(model, groups, masks) as (small, _):
        return small


def _try_without(model: nn.Module, inputs: Batch, groups: Sequence[Group]) -> nn.Module | str:
    """Removes what can go of these groups from a copy; where it fails, or its outputs are not the model's, says why."""
    made = copy.deepcopy(model)
    try:
        while True:  # what was removed may leave further channels that nothing reads
            kept = [_find_kept(made, group, inputs) for group in groups]
            if all(bool(keep.all()) for keep in kept):
                break
            groups = remove_channels(made, groups, kept)
        output = call_model(made, inputs)
    except Exception as error:  # code that holds the number of channels may raise anything
        return f"{BROKEN}: it fails{find_failure(error)} ({describe_error(error)})"
    before = call_model(copy.deepcopy(model), inputs)
    return made if differ(before, output) <= ROUNDING else CHANGED


def _find_kept(model: nn.Module, group: Group, inputs: Batch) -> Tensor:
    """Which channels of a group stay, bool [channels]; constants of those that nothing computes are folded away."""
    if group.blocks:
        return find_kept_blocks(model, group)
    if group.norms:
        return _find_kept_in_norms(model, group)
    tensors = named_tensors(model)
    computed, read = (torch.zeros(group.count, dtype=torch.bool) for _ in range(2))
    for member in group.members:
        if member.role == "output":
            computed |= sum_by_channel(member, tensors[member.tensor] != 0, group.count).cpu() > 0
        elif member.role == "input":
            read |= sum_by_channel(member, tensors[member.tensor] != 0, group.count).cpu() > 0
    keep = read
    constant = (keep & ~computed).nonzero().flatten().tolist()
    if constant:
        readers = find_readers(model, group, inputs)
        for index in constant:
            if int(keep.sum()) == 1:
                break  # PyTorch has no layer without outputs
            if all(reader is not None and reader.can_fold(index) for reader in readers):
                for reader in filter(None, readers):
                    reader.fold(index)
                keep[index] = False
    if not keep.any():
        keep[0] = True  # for the same reason; nothing reads it
    return keep


def _find_kept_in_norms(model: nn.Module, group: Group) -> Tensor:
    """Which channels of a group stay that norms read: those that one of them computes over."""
    kept = torch.zeros(group.count, dtype=torch.bool)
    for name in group.norms:
        channels, in_norm = group.in_norm(name), kept_in_norm(model.get_submodule(name))
        if in_norm is None:
            return torch.ones_like(kept)
        kept[channels[in_norm.cpu() & (channels >= 0)]] = True
    return kept
