"""How many multiply-adds a sample takes, of the dense model and of what masks leave.

A weight of a convolution is used once at every output position, one of a linear layer once for every token. What a
layer takes is therefore its kept weights times its uses; nothing is saved for inputs that are zero because of others.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.pruning import masks

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def uses(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """How often each weight of a layer is used for one sample, by label; `inputs` are a few samples [n, ...].

    A weight that several layers share is used by each of them; a layer that the samples do not reach is used 0 times.
    """
    model = copy.deepcopy(model).eval()
    found: Counter[int] = Counter()

    def count(weight: Tensor, times: float) -> None:
        found[id(weight)] += times / len(inputs)  # type: ignore[assignment]

    hooks = [module.register_forward_hook(_hook(count), with_kwargs=True) for module in model.modules()]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return {label: float(found[id(weight)]) for label, weight in masks.prunable(model).items()}


def _hook(count: Callable[[Tensor, float], None]) -> Callable[..., None]:
    """Counts how often a module's weights were used in one call."""

    def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(module, nn.Linear):
            count(module.weight, output.numel() / module.out_features)
        elif isinstance(module, TRANSPOSED):
            count(module.weight, args[0].numel() / module.in_channels)
        elif isinstance(module, masks.PRUNABLE):
            count(module.weight, output.numel() / module.out_channels)
        elif isinstance(module, nn.MultiheadAttention):
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            _attention(
                module, {name: given[name].numel() / given[name].shape[-1] for name in ("query", "key", "value")}, count
            )

    return called


def _attention(
    module: nn.MultiheadAttention, tokens: Mapping[str, float], count: Callable[[Tensor, float], None]
) -> None:
    """An attention's projections; its own products of queries, keys and values have no weights."""
    if module.in_proj_weight is not None:  # a third each of queries, keys and values
        count(module.in_proj_weight, sum(tokens.values()) / 3)
    else:
        for name, times in tokens.items():
            count(getattr(module, f"{name[0]}_proj_weight"), times)
    count(module.out_proj.weight, tokens["query"])  # which is not called as a module


def left(kept: Mapping[str, Tensor], times: Mapping[str, float]) -> float:
    """Multiply-adds of a sample with these masks, given how often the weights are used."""
    return sum(count * times[label] for label, (count, _) in masks.kept_counts(kept).items())


def share_left(kept: Mapping[str, Tensor], times: Mapping[str, float]) -> float:
    """The share, in [0, 1], of the dense model's multiply-adds that is left; 1 where it takes none."""
    counts = masks.kept_counts(kept)
    whole = sum(total * times[label] for label, (_, total) in counts.items())
    return left(kept, times) / whole if whole else 1.0
