"""The layers that can be pruned, masks with an exact count of zeros, and the compression that masks make.

A mask has its weight's shape and dtype: 1 keeps a weight, 0 removes it. Masks are keyed by layer label.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning.parametrized import Stored
from tune_prune.pruning.weights import LayerWeight, find_weights


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that can be pruned, by layer label, in the model's order; no biases.

    In an `nn.Sequential` a layer's label is its position counted from 1, as in torch7-pruner ("8"); a layer inside a
    part of it is labelled by the part's position and its name in there ("2/conv1"). In any other model a layer's label
    is its qualified name ("layer1.0.conv1"). A weight that several layers share is listed once. Where a layer has
    several weights, each has a label ("attn.in_proj", "lstm.weight_hh_l0.forget"). `layers` lists the layers that have
    weights.

    A weight is the model's own parameter, or a view of a gate's values, which takes no gradient: gradients are those of
    `parameters`. In place of a weight that is computed, as by a weight norm, it is the parameter that is set to zero
    (`parametrized`), and `effective` is the weight. Raises a `UserError` for one that is computed in another way.
    """
    return {label: weight.tensor for label, weight in find_weights(model).items()}


def effective(model: nn.Module) -> dict[str, Tensor]:
    """The weights that the model computes with, by label, detached; other than `prunable` where they are computed."""
    return {label: weight.select(weight.stored.weight()) for label, weight in find_weights(model).items()}


def parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that hold the weights, each once, in the order of their labels."""
    return [group[0].stored.parameter for group in by_parameter(model)]


def by_label(model: nn.Module, tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    """Divides tensors of the shapes of `parameters`, such as their gradients, into those of the weights, by label."""
    groups = zip(by_parameter(model), tensors, strict=True)
    return {weight.label: weight.select(tensor) for group, tensor in groups for weight in group}


def join(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[tuple[Stored, Tensor]]:
    """Yields each stored weight with its whole mask, which is the masks of its gates one after the other."""
    for group in by_parameter(model):
        yield group[0].stored, join_parts(group, masks)


def join_parts(group: Sequence[LayerWeight], tensors: Mapping[str, Tensor]) -> Tensor:
    """The masks or scores, by label, of the weights of a parameter as one: of gates, one after the other."""
    parts = [tensors[weight.label] for weight in group]
    return parts[0] if len(parts) == 1 else torch.cat(parts, group[0].weight.outputs_axis or 0)


def pairs(model: nn.Module, masks: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pairs (parameter, mask) for a training: a parameter that is multiplied by its mask after each step stays zero."""
    return [pair for stored, mask in join(model, masks) for pair in stored.pairs(mask)]


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each weight that can be pruned, by label, in the model's order."""
    return {label: tuple(weight.shape) for label, weight in prunable(model).items()}


def outputs_axes(model: nn.Module) -> dict[str, int | None]:
    """The axis of each weight that counts outputs, by label; None where no axis does."""
    return {label: weight.weight.outputs_axis for label, weight in find_weights(model).items()}


def require_layers(model: nn.Module, labels: Iterable[str], source: str) -> None:
    """Raises a `UserError` that names `source` for the first label that is no prunable layer of the model."""
    layers = prunable(model)
    for label in labels:
        if label not in layers:
            raise UserError(f"{source}: layer {label} cannot be pruned; layers that can: {format_names(layers)}")


def dense_masks(model: nn.Module) -> dict[str, Tensor]:
    """Makes masks that keep every weight, but for those that `torch.nn.utils.prune` has removed."""
    found = {}
    for label, weight in find_weights(model).items():
        mask = found[label] = torch.ones_like(weight.tensor).requires_grad_(False)
        if weight.stored.kept is not None:
            mask.mul_(weight.select(weight.stored.kept))
    return found


def count_removed(ratio: float, total: int) -> int:
    """Counts the weights that a ratio removes of `total`."""
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must be in [0, 1), got {ratio}")
    return round(ratio * total)


def shrink(mask: Tensor, scores: Tensor, ratio: float) -> Tensor:
    """Makes a mask with exactly `round(ratio * n)` zeros: those of `mask`, then the weights with the lowest scores.

    Of equal scores the first in position goes first. Where `mask` has more zeros already, a copy of it is returned.
    """
    removed = mask.flatten() == 0
    remove = count_removed(ratio, mask.numel())
    if remove <= int(removed.sum()):
        return mask.clone()
    order = scores.flatten().double().masked_fill(removed, -torch.inf).argsort(stable=True)
    kept = torch.ones(mask.numel(), dtype=mask.dtype, device=mask.device)
    kept[order[:remove]] = 0
    # ones_like keeps the memory layout (channels-last) of the weight, which makes their product faster
    return torch.ones_like(mask).copy_(kept.view(mask.shape))


@torch.no_grad()
def apply(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Sets every removed weight to exactly zero, never to negative zero as a product with the mask might."""
    for stored, mask in join(model, masks):
        stored.apply(mask)


def find_damaged(model: nn.Module, masks: Mapping[str, Tensor]) -> str | None:
    """Finds a layer with a weight that its mask removes and that is not zero; None where there is none."""
    for group, (stored, mask) in zip(by_parameter(model), join(model, masks), strict=True):
        if not stored.holds(mask):
            return group[0].label
    return None


def kept_counts(masks: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Counts (weights kept, all weights) per layer."""
    return {label: (int(torch.count_nonzero(mask)), mask.numel()) for label, mask in masks.items()}


def actual_ratios(masks: Mapping[str, Tensor], requested: Mapping[str, float]) -> dict[str, float]:
    """The requested ratio of each layer where its mask removes as many weights, else the mask's own ratio."""
    counts = kept_counts({label: masks[label] for label in requested})
    return {
        label: ratio if total - kept == count_removed(ratio, total) else _ratio_of(total - kept, total)
        for (label, ratio), (kept, total) in zip(requested.items(), counts.values(), strict=True)
    }


def global_ratio(masks: Mapping[str, Tensor], requested: Mapping[str, float]) -> float:
    """The one ratio requested for all these layers where their masks remove as many weights, else the masks' own."""
    ratio = next(iter(requested.values()))
    counts = kept_counts({label: masks[label] for label in requested}).values()
    total = sum(n for _, n in counts)
    removed = total - sum(kept for kept, _ in counts)
    return ratio if removed == count_removed(ratio, total) else _ratio_of(removed, total)


def _ratio_of(removed: int, total: int) -> float:
    """A ratio that removes so many weights; it is below 1, as ratios are, where that is all of them."""
    return min(removed, total - 0.25) / total


def compression(masks: Mapping[str, Tensor]) -> float:
    """The share of the weights of all layers that can be pruned that the masks remove, in [0, 1] (`coverage`)."""
    counts = kept_counts(masks).values()
    total = sum(n for _, n in counts)
    return (total - sum(kept for kept, _ in counts)) / total


def factor(compressed: float) -> float:
    """The compression as a factor, 1 / (1 - compression); infinite where no weight is kept."""
    return 1 / (1 - compressed) if compressed < 1 else float("inf")


def by_parameter(model: nn.Module) -> list[list[LayerWeight]]:
    """The weights of each parameter: one, or its gates in their order."""
    groups: dict[int, list[LayerWeight]] = {}
    for weight in find_weights(model).values():
        groups.setdefault(id(weight.stored.parameter), []).append(weight)
    return list(groups.values())
