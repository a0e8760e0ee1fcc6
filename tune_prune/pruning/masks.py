"""The layers that can be pruned, masks with an exact count of zeros, and the compression that masks make.

A mask has its weight's shape and dtype: 1 keeps a weight, 0 removes it. Masks are keyed by layer label.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, format_names

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose weights are [inputs, outputs, ...], not [outputs, inputs, ...]."""

PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
"""Layers whose weights can be pruned; the projections of `nn.MultiheadAttention` can be too."""


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that can be pruned, by layer label, in the model's order; no biases.

    In an `nn.Sequential` a layer's label is its position counted from 1, as in torch7-pruner ("8"); a layer inside a
    part of it is labelled by the part's position and its name in there ("2/conv1"). In any other model a layer's label
    is its qualified name ("layer1.0.conv1"). A weight that several layers share is listed once. The projections of an
    `nn.MultiheadAttention` are layers too ("attn.in_proj", or "attn.q_proj", "attn.k_proj" and "attn.v_proj"). Raises a
    `UserError` for a layer whose weight is computed from other tensors, as by `weight_norm`: a mask would not last.
    """
    weights: dict[str, Tensor] = {}
    for label, module in labelled_modules(model):
        for part, weight in _module_weights(module):
            if not isinstance(weight, nn.Parameter):
                raise UserError(_describe_computed(label or "of the model itself"))
            if not any(weight is seen for seen in weights.values()):
                is_position = isinstance(model, nn.Sequential) and "/" not in label
                separator = "" if not part or not label else "/" if is_position else "."
                weights[f"{label}{separator}{part}"] = weight
    return weights


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each weight that can be pruned, by label, in the model's order."""
    return {label: tuple(weight.shape) for label, weight in prunable(model).items()}


def transposed_layers(model: nn.Module) -> set[str]:
    """The labels of the layers whose weights are [inputs, outputs, ...], not [outputs, inputs, ...]."""
    transposed = [module.weight for module in model.modules() if isinstance(module, TRANSPOSED)]
    return {label for label, weight in prunable(model).items() if any(weight is one for one in transposed)}


def require_layers(model: nn.Module, labels: Iterable[str], source: str) -> None:
    """Raises a `UserError` that names `source` for the first label that is no prunable layer of the model."""
    layers = prunable(model)
    for label in labels:
        if label not in layers:
            raise UserError(f"{source}: layer {label} cannot be pruned; layers that can: {format_names(layers)}")


def dense_masks(model: nn.Module) -> dict[str, Tensor]:
    """Makes masks that keep every weight."""
    return {label: torch.ones_like(weight).requires_grad_(False) for label, weight in prunable(model).items()}


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
    for label, weight in prunable(model).items():
        weight.masked_fill_(masks[label] == 0, 0.0)


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


def labelled_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields every module with the label that a layer in its place has (`prunable`)."""
    if not isinstance(model, nn.Sequential):
        yield from model.named_modules()
        return
    # not named_children, which leaves out a module's second use and so would shift the positions after it
    for position, part in enumerate(model, start=1):
        for name, module in part.named_modules():
            yield f"{position}/{name}" if name else str(position), module


def _describe_computed(label: str) -> str:
    """Says why a layer with a parametrized weight is refused, and what to do."""
    remedy = "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
    older = "remove_weight_norm, remove_spectral_norm or prune.remove for what torch.nn.utils made without it"
    why = "is computed from other tensors, as by weight_norm, and cannot be pruned"
    return f"the weight of layer {label} {why}; let the model's factory end with {remedy}, or with {older}"


def _module_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, weight) for the prunable weights of a module itself; a layer's weight has the empty name."""
    if isinstance(module, PRUNABLE):
        yield "", module.weight
    if isinstance(module, nn.MultiheadAttention):
        for part in ("in_proj", "q_proj", "k_proj", "v_proj"):
            weight = getattr(module, f"{part}_weight")
            if weight is not None:
                yield part, weight
