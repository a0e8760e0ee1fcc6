"""Prunes mixtures: channels of groups, and single weights or 2:4 patterns of layers within what the channels leave.

A ratio of weights is a share of those that channels leave, so that any ratios of groups and layers go together. A
channel leaves by the ratio of its group alone: one that would lose all of its weights keeps the best of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.groups import Group, Member
from tune_prune.pruning.channels.removal import find_kept, join_by_name, name_weights, split_by_label
from tune_prune.pruning.channels.slicing import find_positions, find_staying
from tune_prune.pruning.criteria import score_layers
from tune_prune.pruning.granularity import MIXTURES, TWO_OF_FOUR, halve_fours, shrink
from tune_prune.pruning.masks import actual_ratios as ratios_of_masks
from tune_prune.pruning.masks import apply, outputs_axes
from tune_prune.pruning.plan import WEIGHTS, Plan
from tune_prune.pruning.statistics import Context

Positions = tuple[Tensor, ...] | EllipsisType
"""The part of a layer's weights that channels leave, as an index."""


def prune(
    context: Context, groups: Sequence[Group], masks: Mapping[str, Tensor], plan: Plan, ratios: Mapping[str, float]
) -> dict[str, Tensor]:
    """Makes new masks by the plan's pruners: of groups, and in a mixture of weights that these leave.

    Weights are scored in the network without the channels that are gone. Raises a `UserError` for a ratio of no group
    and of no layer.
    """
    own = _find_own(plan, ratios)
    for label, name in own.items():
        if label not in masks:
            raise UserError(f"{name} names no layer that can be pruned; known: {format_names(masks)}")
    made = removal.prune(context, groups, masks, plan, {k: v for k, v in ratios.items() if k not in own.values()})
    shares = {label: ratios[name] for label, name in own.items() if ratios[name] > 0}
    if not shares:  # a .conf does not list these, and its replay must draw the same random numbers
        return made
    apply(context.model, made)
    scores = score_layers({label: plan.pruners[own[label]] for label in shares}, context)
    return made | remove_weights(context.model, groups, made, scores, shares, MIXTURES[plan.granularity])


def _find_own(plan: Plan, ratios: Mapping[str, float]) -> dict[str, str]:
    """The names of ratios of single weights, by the label of the layer; none where the plan is of no mixture."""
    if plan.granularity not in MIXTURES:
        return {}
    return {name.removeprefix(WEIGHTS): name for name in ratios if name.startswith(WEIGHTS)}


def find_left(
    model: nn.Module, groups: Sequence[Group], masks: Mapping[str, Tensor], labels: Iterable[str]
) -> dict[str, Positions]:
    """What channels leave of each of these layers."""
    by_name = join_by_name(model, masks)
    staying = find_staying(groups, [find_kept(group, by_name).cpu() for group in groups])
    parts = {part.label: (name, part) for name, of_name in name_weights(model).items() for part in of_name}
    found: dict[str, Positions] = {}
    for label in labels:
        name, part = parts[label]
        of_part = {axis: part.select_along(kept, axis) for (tensor, axis), kept in staying.items() if tensor == name}
        found[label] = find_positions(masks[label], of_part)
    return found


@torch.no_grad()
def remove_weights(
    model: nn.Module,
    groups: Sequence[Group],
    masks: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    ratios: Mapping[str, float],
    granularity: str,
) -> dict[str, Tensor]:
    """Makes new masks of layers whose weights are pruned to these ratios of what channels leave of them.

    Everything is by the label of a layer. Neighbours of a 2:4 pattern are those of the network without the channels
    that are gone. The zeros of `masks` stay; a layer that has more of them than its ratio asks for stays as it is.
    """
    axes, made = outputs_axes(model), {label: masks[label].clone() for label in ratios}
    for label, left in find_left(model, groups, masks, ratios).items():
        mask, score, ratio, axis = masks[label][left], scores[label][left], ratios[label], axes[label]
        if granularity == TWO_OF_FOUR and ratio >= 0.5:
            mask = halve_fours(mask, score, axis)
        made[label][left] = shrink(mask, score, ratio, granularity, axis)
    _keep_channels(model, groups, masks, made, scores)
    return made


def _keep_channels(
    model: nn.Module,
    groups: Sequence[Group],
    before: Mapping[str, Tensor],
    made: dict[str, Tensor],
    scores: Mapping[str, Tensor],
) -> None:
    """Gives back its best weight to each channel that would lose all: in the layer that computes it, where it can be.

    That layer has none of the channel's weights then, so that no 2:4 pattern has one too many.
    """
    was, now = join_by_name(model, before), join_by_name(model, {**before, **made})
    scored = join_by_name(model, scores)
    for group in groups:
        for channel in (find_kept(group, was) & ~find_kept(group, now)).nonzero().flatten().tolist():
            alive = ((one.tensor, _select(one, channel, was[one.tensor])) for one in _weights_of(group, was))
            name, weights = next((name, weights) for name, weights in alive if bool(weights.any()))
            score = scored[name].double().masked_fill(~weights, -torch.inf)
            now[name][torch.unravel_index(score.argmax(), score.shape)] = 1
    made |= {label: mask for label, mask in split_by_label(model, now).items() if label in made}


def _weights_of(group: Group, masks: Mapping[str, Tensor]) -> list[Member]:
    """The weights that list a group's channels, those first that compute them."""
    return sorted((m for m in group.members if m.tensor in masks), key=lambda member: member.role == "input")


def _select(member: Member, channel: int, mask: Tensor) -> Tensor:
    """The weights of a channel that a mask keeps, bool."""
    shape = [-1 if axis == member.axis else 1 for axis in range(mask.dim())]
    return (mask != 0) & (member.channels == channel).to(mask.device).view(shape)


def actual_ratios(
    model: nn.Module,
    groups: Sequence[Group],
    masks: Mapping[str, Tensor],
    requested: Mapping[str, float],
    plan: Plan,
) -> dict[str, float]:
    """The requested ratio of each group and layer where so much has gone, else the share that has."""
    own = _find_own(plan, requested)
    found = removal.actual_ratios(model, groups, masks, requested)
    shares = {label: requested[name] for label, name in own.items()}
    left = {label: masks[label][at] for label, at in find_left(model, groups, masks, shares).items()} if own else {}
    found |= {own[label]: ratio for label, ratio in ratios_of_masks(left, shares).items()}
    return {name: found[name] for name in requested}
