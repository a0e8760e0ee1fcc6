"""The units that are removed whole: single weights, filters and neurons, or weights in a 2:4 pattern.

In all of them the ratio is the share of a layer's weights that masks remove. A removed filter also makes weights of the
layers that read it useless; those are not counted, and masks keep them.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tune_prune.common.errors import UserError, describe_unknown
from tune_prune.common.registry import Registry
from tune_prune.pruning import masks
from tune_prune.pruning.plan import WEIGHTS


@dataclass(frozen=True)
class Units:
    """A layer's weights in units of `size` weights each, with a `score` [units]; the lowest scores go first.

    Units of a lower `rank` [units] go before all others, whatever their scores.
    """

    score: Tensor
    size: int
    rank: Tensor


Granularity = Callable[[Tensor, Tensor], Units]
"""Divides a layer into units, in the order of the flattened weight; takes scores and mask [outputs, inputs, ...]."""

granularities: Registry[Granularity] = Registry("granularity")

CHANNEL = "channel"
"""Channels with all that hangs together with them (`channels`): units not of a layer, but of a group of layers."""

HEAD = "head"
"""Heads of attentions alone, each with its queries, keys, values and the weights that read it."""

BLOCK = "block"
"""Whole residual blocks, which are left out."""

BLOCK_CHANNEL = "block+channel"
"""Whole residual blocks, and channels of those that stay: each kind of group has ratios of its own."""

TWO_OF_FOUR = "2:4"
"""Single weights, of every four neighbours the two lowest first."""

MIXTURES: Mapping[str, str] = {"channel+weight": "weight", "channel+2:4": TWO_OF_FOUR}
"""Channels, and within what they leave weights of the granularity on the right: groups have ratios, and layers do."""

MIXTURE_NAMES = " or ".join(map(repr, MIXTURES))
"""Their names, for messages."""

GROUPED = (CHANNEL, HEAD, BLOCK, BLOCK_CHANNEL, *MIXTURES)
"""The granularities whose units are of groups of layers, each of which has a ratio."""

_LAST = 2**62


def weight(scores: Tensor, mask: Tensor) -> Units:
    """Single weights, in no regular pattern (Han et al. 2015)."""
    score = scores.flatten().double()
    return Units(score, 1, torch.zeros_like(score, dtype=torch.int64))


def outputs(scores: Tensor, mask: Tensor) -> Units:
    """Filters of a convolution or neurons of a linear layer: all weights of one output, by their mean score.

    With `mag` this is the L1 norm of Li et al. (2017, sec. 3.1), per weight; removed weights count as 0. Biases stay: a
    removed output is its bias.
    """
    score = scores.masked_fill(mask == 0, 0).flatten(1).double().mean(1)
    return Units(score, math.prod(scores.shape[1:]), torch.zeros_like(score, dtype=torch.int64))


def two_of_four(scores: Tensor, mask: Tensor) -> Units:
    """Single weights, first the two lowest of every four neighbours along the inputs (Mishra et al. 2021, sec. 3.1).

    From a ratio of 0.5 on, every four hold at least two zeros, as sparse tensor cores need it; beyond it the lowest
    scores go wherever they are. Where the inputs are no multiple of four, zeros are assumed after the last.
    """
    score = scores.double()
    inputs = score.masked_fill(mask == 0, -math.inf).movedim(1, -1)  # [outputs, ..., inputs]
    fours = pad(inputs, (0, -inputs.shape[-1] % 4), value=-math.inf).unflatten(-1, (-1, 4))
    order_in_four = fours.argsort(dim=-1, stable=True).argsort(dim=-1).flatten(-2)
    upper = (order_in_four[..., : inputs.shape[-1]] >= 2).movedim(-1, 1)
    return Units(score.flatten(), 1, upper.flatten().long())


granularities.add("weight", weight)
granularities.add("filter", outputs)
granularities.add("neuron", outputs)
granularities.add(TWO_OF_FOUR, two_of_four)


def check_name(name: str) -> None:
    """Raises a `UserError` where there is no granularity of this name."""
    if name not in GROUPED and name not in granularities:
        raise UserError(describe_unknown("granularity", name, [*granularities.names(), *GROUPED]))


def shrink(
    mask: Tensor, scores: Tensor, ratio: float, granularity: str = "weight", outputs_axis: int | None = 0
) -> Tensor:
    """Makes the new mask of a single layer; see `remove`."""
    if granularity == "weight":
        return masks.shrink(mask, scores, ratio)
    return remove({"": mask}, {"": scores}, ratio, granularity, {"": outputs_axis})[""]


def halve_fours(mask: Tensor, scores: Tensor, outputs_axis: int | None) -> Tensor:
    """Removes the two lowest of every four neighbours along the inputs, however many there are in all.

    Where inputs have left since weights were removed, others are neighbours, of which too few may be zero.
    """
    axis = outputs_axis or 0
    oriented = mask.movedim(axis, 0)
    lower = two_of_four(scores.movedim(axis, 0), oriented).rank.view(oriented.shape) == 0
    return mask.masked_fill(lower.movedim(0, axis), 0)


def check_layers(model: nn.Module, labels: Collection[str], granularity: str, source: str) -> None:
    """Raises a `UserError` that names `source` for the first of these layers that has no such units."""
    if granularity in MIXTURES:
        labels = [label.removeprefix(WEIGHTS) for label in labels if label.startswith(WEIGHTS)]
    elif granularity in GROUPED:
        return  # whose groups decide
    granularity = MIXTURES.get(granularity, granularity)
    axes = masks.outputs_axes(model)
    for label, shape in masks.shapes(model).items():
        if label in labels:
            _check_units(label, shape, axes[label], granularity, f"{source}: ")


def remove(
    before: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    ratio: float,
    granularity: str = "weight",
    outputs_axes: Mapping[str, int | None] | None = None,
    *,
    keep_one: bool = False,
) -> dict[str, Tensor]:
    """Makes new masks of several layers, pruned together to one ratio of all their weights.

    The zeros of the masks `before` stay, and the units with the lowest scores of all layers are added to them. Where
    units have several weights, the number of removed weights comes as near to the ratio as it can, and each layer keeps
    one unit: without any output it would pass nothing on. Where the masks have more zeros already, they stay as they
    are. Of equal scores the first in position goes first, layer by layer; units with an infinite score go last. Masks
    and scores have their weights' shapes; `outputs_axes` gives the axis of the outputs where it is not the first
    (`masks.outputs_axes`). With `keep_one` each layer keeps one unit where units are single weights, too, even if the
    ratio is not reached then.
    """
    divide = granularities[granularity]
    axes = {}
    for label, mask in before.items():
        axis = (outputs_axes or {}).get(label, 0)
        _check_units(label, mask.shape, axis, granularity)
        axes[label] = axis or 0
    oriented = {label: mask.movedim(axes[label], 0) for label, mask in before.items()}
    units = {label: divide(scores[label].movedim(axes[label], 0), oriented[label]) for label in before}
    kept = {label: oriented[label].reshape(-1, units[label].size).count_nonzero(1) for label in before}
    total = sum(mask.numel() for mask in before.values())
    already_removed = total - sum(int(counts.sum()) for counts in kept.values())
    sizes = torch.cat([_count_removable(units[label], kept[label], keep_one) for label in before])
    removed = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    removed[_choose_units(units, sizes, masks.count_removed(ratio, total) - already_removed)] = True
    new_masks = {}
    for label, part in zip(before, removed.split([len(counts) for counts in kept.values()]), strict=True):
        removed_weights = part.repeat_interleave(units[label].size).view(oriented[label].shape)
        new_masks[label] = before[label].masked_fill(removed_weights.movedim(0, axes[label]), 0)
    return new_masks


def _check_units(label: str, shape: Sequence[int], outputs_axis: int | None, granularity: str, where: str = "") -> None:
    """Raises a `UserError` where a layer has no outputs and inputs, of which all units but single weights are made."""
    if granularity != "weight" and (outputs_axis is None or len(shape) < 2):
        why = f"needs outputs and inputs, which the weights {list(shape)} of layer {label} do not have"
        advice = "leave the layer out, or take granularity 'weight'"
        raise UserError(f"{where}granularity {granularity!r} {why}; {advice}")


def _count_removable(units: Units, kept: Tensor, keep_one: bool) -> Tensor:
    """Counts the weights that each unit would remove: those it has kept, 0 for the unit that the layer keeps."""
    if (units.size == 1 and not keep_one) or not kept.any():
        return kept
    removable = kept.clone()
    removable[units.score.masked_fill(kept == 0, -math.inf).argmax()] = 0
    return removable


def _choose_units(units: Mapping[str, Units], sizes: Tensor, target: int) -> Tensor:
    """Chooses the units to remove, the lowest first, so that their weights in all come nearest to `target`.

    Where two numbers of units come equally near, the smaller is taken. `sizes` are the weights that each unit removes;
    units that remove none are left out.
    """
    candidates = sizes.nonzero().flatten()
    score, rank = (torch.cat([getattr(one, name) for one in units.values()])[candidates] for name in ("score", "rank"))
    order = score.argsort(stable=True)
    order = order[rank[order].masked_fill(score[order].isposinf(), _LAST).argsort(stable=True)]
    removed = pad(sizes[candidates[order]].cumsum(0), (1, 0))
    distance = (removed - target).abs()
    return candidates[order[: int((distance == distance.min()).nonzero()[0, 0])]]
