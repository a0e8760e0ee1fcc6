"""Scores by magnitude that can be compared over all layers: of single weights, filters, or channels of groups.

One threshold on these says how much of each layer, or of each group, leaves.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.mixture import find_left
from tune_prune.pruning.channels.removal import find_kept, join_by_name, score_channels
from tune_prune.pruning.granularity import GROUPED, TWO_OF_FOUR, granularities
from tune_prune.pruning.masks import outputs_axes, prunable
from tune_prune.pruning.plan import WEIGHTS

BY_WEIGHT = ("weight", TWO_OF_FOUR)
"""Granularities whose units are single weights."""


def score_globally(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    granularity: str,
    labels: Collection[str],
    groups: Sequence[Group] = (),
) -> dict[str, Tensor]:
    """The score of each unit, [units], by the label of a layer or the name of a group; 0 where a unit is gone.

    A single weight has its magnitude; of a mixture those count that channels leave. Filters and channels have theirs as
    a multiple of the mean of those that are left of the layer or the group: a channel of few weights would else seem
    small beside one of many, and whole layers would leave. Layers and groups of `labels` alone are scored; `groups` are
    those of a granularity of groups.
    """
    weights = {label: weight.detach().abs() for label, weight in prunable(model).items()}
    if granularity in GROUPED:
        return _score_groups(model, weights, masks, labels, groups)
    axes, found = outputs_axes(model), {}
    for label in labels:
        magnitude, mask = weights[label], masks[label]
        if granularity in BY_WEIGHT:
            found[label] = (magnitude * mask).flatten()
        else:
            oriented = mask.movedim(axes[label] or 0, 0)
            units = granularities[granularity](magnitude.movedim(axes[label] or 0, 0), oriented)
            found[label] = _relate(units.score, oriented.flatten(1).any(1))
    return found


def _score_groups(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    labels: Collection[str],
    groups: Sequence[Group],
) -> dict[str, Tensor]:
    """The scores of channels by the name of their group, and of a mixture those of weights, from magnitudes."""
    magnitudes, by_name = join_by_name(model, weights), join_by_name(model, masks)
    found = {
        group.name: _relate(score_channels(group, magnitudes, by_name), find_kept(group, by_name))
        for group in groups
        if group.name in labels
    }
    own = [label.removeprefix(WEIGHTS) for label in labels if label.startswith(WEIGHTS)]
    for label, left in find_left(model, groups, masks, own).items():
        found[WEIGHTS + label] = (weights[label] * masks[label])[left].flatten()
    return found


def _relate(scores: Tensor, kept: Tensor) -> Tensor:
    """Scores as multiples of the mean of those that are `kept`, bool of the same shape; 0 for the others."""
    left = scores.masked_fill(~kept, 0.0)
    total = float(left.sum())
    return left * (int(kept.sum()) / total) if total else torch.where(kept, 1.0, 0.0)
