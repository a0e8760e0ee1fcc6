"""What is removed as one: single weights, whole filters and neurons, or weights in a 2:4 pattern.

The ratio means the same in all of them, the share of a layer's weights that masks remove. Weights that become useless
because of others (the inputs of a layer that read a removed filter) are not counted: masks leave them.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from tune_prune.common.registry import Registry
from tune_prune.pruning import masks


@dataclass(frozen=True)
class Units:
    """A layer's weights in units that are removed whole: `score` [units], of `size` weights each.

    Those of a lower `rank` [units] go first whatever their scores.
    """

    score: Tensor
    size: int
    rank: Tensor


Granularity = Callable[[Tensor, Tensor], Units]
"""From a layer's scores and its mask [outputs, inputs, ...] to its units, in the order of the flattened weight."""

granularities: Registry[Granularity] = Registry("granularity")


def weight(scores: Tensor, mask: Tensor) -> Units:
    """Single weights: nothing to be regular for (Han et al. 2015)."""
    score = scores.flatten().double()
    return Units(score, 1, torch.zeros_like(score, dtype=torch.int64))


def outputs(scores: Tensor, mask: Tensor) -> Units:
    """Whole filters of a convolution, neurons of a linear layer: all that makes one output, by its mean score.

    With `mag` this is the L1 norm of Li et al. (2017, sec. 3.1), per weight; what is removed already counts as nothing.
    Biases stay: a removed output is its bias.
    """
    score = (scores * mask).flatten(1).double().mean(1)
    return Units(score, math.prod(scores.shape[1:]), torch.zeros_like(score, dtype=torch.int64))


def two_of_four(scores: Tensor, mask: Tensor) -> Units:
    """Single weights, first the two lowest of every four neighbours along the inputs (Mishra et al. 2021, sec. 3.1).

    From a ratio of 0.5 on every four hold at least two zeros, which sparse tensor cores compute with; beyond it the
    lowest go wherever they are. Inputs are counted as if filled up with zeros to a multiple of four.
    """
    score = scores.double()
    inputs = score.masked_fill(mask == 0, -math.inf).movedim(1, -1)  # [outputs, ..., inputs]
    fours = pad(inputs, (0, -inputs.shape[-1] % 4), value=-math.inf).unflatten(-1, (-1, 4))
    place = fours.argsort(dim=-1, stable=True).argsort(dim=-1).flatten(-2)
    upper = (place[..., : inputs.shape[-1]] >= 2).movedim(-1, 1)
    return Units(score.flatten(), 1, upper.flatten().long())


granularities.add("weight", weight)
granularities.add("filter", outputs)
granularities.add("neuron", outputs)
granularities.add("2:4", two_of_four)


def shrink(mask: Tensor, scores: Tensor, ratio: float, granularity: str = "weight", transposed: bool = False) -> Tensor:
    """A new mask of one layer, as `remove` makes it."""
    if granularity == "weight":
        return masks.shrink(mask, scores, ratio)
    return remove({"": mask}, {"": scores}, ratio, granularity, [""] if transposed else ())[""]


def remove(
    before: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    ratio: float,
    granularity: str = "weight",
    transposed: Collection[str] = (),
) -> dict[str, Tensor]:
    """New masks of some layers, taken as one: what was removed already, and units up to the ratio of all, are gone.

    Of units of several weights as many go as come nearest to it, and each layer keeps one: without any output it would
    pass nothing on. Masks and scores have their weights' shapes; `transposed` are layers of transposed convolutions,
    whose weights are [inputs, outputs, ...]. Ties go by position, the first first, layer by layer. Where more is
    removed already the masks stay as they are.
    """
    turned = {label: _turn(mask, label in transposed) for label, mask in before.items()}
    as_units = granularities[granularity]
    units = {label: as_units(_turn(scores[label], label in transposed), mask) for label, mask in turned.items()}
    alive = {label: turned[label].reshape(-1, units[label].size).count_nonzero(1) for label in before}
    total = sum(mask.numel() for mask in before.values())
    removed = total - sum(int(count.sum()) for count in alive.values())
    sizes = torch.cat([_removable(units[label], alive[label]) for label in before])
    gone = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    gone[_choose_units(units, sizes, masks.count_removed(ratio, total) - removed)] = True
    found = {}
    for label, part in zip(before, gone.split([len(count) for count in alive.values()]), strict=True):
        out = part.repeat_interleave(units[label].size).view(turned[label].shape)
        found[label] = before[label].masked_fill(_turn(out, label in transposed), 0)
    return found


def _turn(weight: Tensor, transposed: bool) -> Tensor:
    return weight.transpose(0, 1) if transposed else weight


def _removable(units: Units, alive: Tensor) -> Tensor:
    """How many weights each unit has to give, 0 for the one that a layer keeps."""
    if units.size == 1 or not alive.any():
        return alive
    free = alive.clone()
    free[units.score.masked_fill(alive == 0, -math.inf).argmax()] = 0
    return free


def _choose_units(units: Mapping[str, Units], sizes: Tensor, wanted: int) -> Tensor:
    """The units that go first, whose weights in all come nearest to what is wanted; of equally near ones fewer."""
    there = sizes.nonzero().flatten()
    score, rank = (torch.cat([getattr(one, name) for one in units.values()])[there] for name in ("score", "rank"))
    order = score.argsort(stable=True)
    order = order[rank[order].argsort(stable=True)]
    removed = pad(sizes[there[order]].cumsum(0), (1, 0))
    distance = (removed - wanted).abs()
    return there[order[: int((distance == distance.min()).nonzero()[0, 0])]]
