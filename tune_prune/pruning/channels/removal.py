"""Scores the channels of groups and removes the lowest: in masks, and in biases and norms, which have none.

A channel is removed where masks remove all weights that compute or read it. What it holds is then zero, and nothing
reads it: its biases and norms get no gradient and stay zero while the network is trained.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning.channels.groups import Group, Member
from tune_prune.pruning.channels.norms import keep_in_norm, kept_in_norm
from tune_prune.pruning.channels.tracer import named_tensors
from tune_prune.pruning.criteria import score_layers
from tune_prune.pruning.masks import apply, by_parameter, dense_masks, join_parts
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context
from tune_prune.pruning.weights import LayerWeight


def name_weights(model: nn.Module) -> dict[str, list[LayerWeight]]:
    """The weights of each parameter by its name: one, or its gates in their order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(group[0].stored.parameter)]: group for group in by_parameter(model)}


def join_by_name(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks or scores by the name of a parameter, from those by the label of a layer; gates are joined.

    Parameters are left out of which a part is not there.
    """
    named = name_weights(model).items()
    return {name: join_parts(parts, tensors) for name, parts in named if all(part.label in tensors for part in parts)}


def split_by_label(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks or scores by the label of a layer, from those by the name of a parameter; gates are views."""
    named = name_weights(model).items()
    return {part.label: part.select(tensors[name]) for name, parts in named if name in tensors for part in parts}


def sum_by_channel(member: Member, values: Tensor, count: int) -> Tensor:
    """Sums a tensor over each channel, double [count]."""
    along = values.double().movedim(member.axis, 0).flatten(1).sum(1)
    inside = member.channels >= 0
    channels = member.channels[inside].to(values.device)
    return torch.zeros(count, dtype=torch.float64, device=values.device).index_add_(0, channels, along[inside])


def _layer_of(member: Member, group: Group) -> str:
    """The tensor of a member, without the name of the block where it is of one: blocks of a group have the same."""
    return member.tensor.removeprefix(f"{group.blocks[int(member.channels[0])]}.") if group.blocks else member.tensor


def find_kept(group: Group, masks: Mapping[str, Tensor]) -> Tensor:
    """Which channels of a group are left, bool [count]; `masks` are by the name of a weight's parameter."""
    members = [member for member in group.members if member.tensor in masks]
    return torch.stack([sum_by_channel(one, masks[one.tensor], group.count) for one in members]).sum(0) > 0


def score_channels(group: Group, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
    """The score of each channel, double [count], from the scores of all weights that compute or read it.

    Both are by the name of a weight's parameter. The score is the sum over a layer's weights that are left, as a share
    of the sum over all channels, so that a layer with large weights does not decide alone; and the mean of these
    shares over the layers. A layer of a block is compared with the same one of the other blocks of the group.
    """
    sums: dict[tuple[str, int], Tensor] = {}
    for member in group.members:
        if member.tensor in scores:
            kept = scores[member.tensor].masked_fill(masks[member.tensor] == 0, 0)
            kept = kept.masked_fill(kept.isposinf(), 0)  # of a row of padding, which says nothing of its channels
            layer, found = (_layer_of(member, group), member.axis), sum_by_channel(member, kept, group.count)
            sums[layer] = found + sums[layer] if layer in sums else found
    return torch.stack([found / found.sum() if float(found.sum()) else found for found in sums.values()]).mean(0)


def mask_at_random(
    model: nn.Module, groups: Sequence[Group], ratios: Mapping[str, float], generator: torch.Generator
) -> dict[str, Tensor]:
    """Masks channels of a dense model in place, at random places and in every part of a group; returns the masks."""
    dense = dense_masks(model)
    made = remove(model, groups, dense, _draw_scores(model, groups, dense, generator), ratios)
    apply(model, made)
    return made


def _draw_scores(
    model: nn.Module, groups: Sequence[Group], masks: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """Random scores of weights, by the label of a layer, by which channels in every part of a group go.

    The scores of a channel's weights are alike in all layers and far from other channels', so that those which few
    layers list go no sooner than others.
    """
    scores = {name: torch.ones_like(mask) for name, mask in join_by_name(model, masks).items()}
    for group in groups:
        drawn = 10 ** (-6 * torch.rand(group.count, generator=generator))
        for member in group.members:
            if member.tensor in scores:
                of_weight = scores[member.tensor]
                along = torch.where(member.channels >= 0, drawn[member.channels], 1.0).to(of_weight)
                of_weight *= along.view([-1 if axis == member.axis else 1 for axis in range(of_weight.dim())])
    return split_by_label(model, scores)


def count_left(count: int, ratio: float, multiple_of: int = 1, least: int = 1) -> int:
    """Counts the channels that a ratio leaves of `count`: at least `least`, and a multiple, the next higher one."""
    left = max(count - round(ratio * count), least)
    return min(-(-left // multiple_of) * multiple_of, count)


OF_BLOCKS = (1, 0)
"""What stands for `multiple_of` and `min_width` where a group is of blocks."""


def count_left_of(group: Group, ratio: float, multiple_of: int = 1, min_width: int = 1) -> int:
    """Counts the channels that a ratio leaves of a group, as `count_left` does; all blocks of a group may leave."""
    return count_left(group.count, ratio, *(OF_BLOCKS if group.blocks else (multiple_of, min_width)))


@torch.no_grad()
def remove(
    model: nn.Module,
    groups: Sequence[Group],
    masks: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    ratios: Mapping[str, float],
    multiple_of: int = 1,
    min_width: int = 1,
) -> dict[str, Tensor]:
    """Makes new masks of all layers whose channels are pruned to these ratios, and zeros in biases and norms.

    `ratios` are by the name of a group, masks and scores by the label of a layer. Channels that are gone stay so; of
    those that are left the lowest scores go, of equal ones the first in position. Each layer keeps one channel, but for
    layers of blocks that leave.
    """
    by_name, scored = join_by_name(model, masks), join_by_name(model, scores)
    made = {name: mask.clone() for name, mask in by_name.items()}
    tensors = named_tensors(model)
    for group in groups:
        if group.name not in ratios:
            continue
        kept = find_kept(group, by_name)
        order = score_channels(group, scored, by_name).masked_fill(~kept, -torch.inf).argsort(stable=True)
        left = min(count_left_of(group, ratios[group.name], multiple_of, min_width), int(kept.sum()))
        gone = torch.ones(group.count, dtype=torch.bool, device=order.device)
        gone[order[group.count - left :]] = False
        if not group.blocks:
            _leave_one(group, order, gone)
        for member in group.members:
            channels = member.channels.to(gone.device)
            positions = (gone[channels] & (channels >= 0)).nonzero().flatten()
            if member.tensor in made:
                made[member.tensor].index_fill_(member.axis, positions, 0)
            elif isinstance(tensors[member.tensor], nn.Parameter):
                tensors[member.tensor].index_fill_(member.axis, positions.to(tensors[member.tensor].device), 0)
        if gone.any():
            _leave_out_of_norms(model, group, gone)
    return split_by_label(model, made)


def _leave_one(group: Group, order: Tensor, gone: Tensor) -> None:
    """Leaves each layer its best channel where all that it has in a group would go; `order` is ascending in score."""
    for member in group.members:
        own = torch.zeros_like(gone)
        own[member.channels[member.channels >= 0].to(gone.device)] = True
        if bool(gone[own].all()):
            gone[order[own[order]][-1]] = False


def _leave_out_of_norms(model: nn.Module, group: Group, gone: Tensor) -> None:
    """Makes the norms that read a group leave out channels that are gone, bool [count]."""
    for name in group.norms:
        norm = model.get_submodule(name)
        channels = group.in_norm(name).to(gone.device)
        before = kept_in_norm(norm)
        kept = ~(gone[channels] & (channels >= 0))
        keep_in_norm(norm, kept if before is None else kept & before.to(kept.device))


def prune(
    context: Context, groups: Sequence[Group], masks: Mapping[str, Tensor], plan: Plan, ratios: Mapping[str, float]
) -> dict[str, Tensor]:
    """Makes new masks by the plan's pruners: each group's channels are scored by the pruner under the group's name.

    Raises a `UserError` for a ratio of no group.
    """
    names = [group.name for group in groups]
    for label in ratios:
        if label not in names:
            raise UserError(f"layer {label} names no group that can be removed; known: {format_names(names)}")
    named = name_weights(context.model).items()
    labels = [part.label for name, parts in named if _is_touched(name, groups) for part in parts]
    made = dict(masks)
    for pruner in dict.fromkeys(plan.pruners[name] for name in ratios):
        scores = score_layers(dict.fromkeys(labels, pruner), context)
        chosen = {name: ratio for name, ratio in ratios.items() if plan.pruners[name] == pruner}
        made |= remove(context.model, groups, made, scores, chosen, plan.multiple_of, plan.min_width)
    return made


def _is_touched(name: str, groups: Sequence[Group]) -> bool:
    return any(member.tensor == name for group in groups for member in group.members)


def actual_ratios(
    model: nn.Module,
    groups: Sequence[Group],
    masks: Mapping[str, Tensor],
    requested: Mapping[str, float],
) -> dict[str, float]:
    """The requested ratio of each group where it alone removes as many channels as have gone, else the share that has.

    The share is another where a multiple or a least width has left more of them.
    """
    by_name, found = join_by_name(model, masks), {}
    for group in groups:
        if group.name in requested:
            left, ratio = int(find_kept(group, by_name).sum()), requested[group.name]
            # a group inside blocks that have left keeps its ratio; a ratio is below 1, also where all blocks have left
            reached = left == count_left_of(group, ratio) or not (left or group.blocks)
            found[group.name] = ratio if reached else min(group.count - left, group.count - 0.25) / group.count
    return found
