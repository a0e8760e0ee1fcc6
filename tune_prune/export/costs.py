"""Counts the multiply-adds of one sample.

A weight of a convolution is used once at every output position, a weight of a linear layer
once for every token, one of a recurrent layer once for every time step, and one of an embedding, which is looked up,
never (`layers`). A layer therefore takes its kept weights times their uses; inputs that are zero because of other
layers save nothing.
"""

import copy
import inspect
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.pruning import layers, masks, weights
from tune_prune.tasks.splits import AnySplit


def count_uses(model: nn.Module, sample: AnySplit) -> dict[str, float]:
    """Counts how often each weight of a layer is used for one sample, by label; `sample` are a few samples.

    Each layer that shares a weight uses it; a layer that the samples do not reach is used 0 times.
    """
    model = copy.deepcopy(model).eval()
    uses: Counter[int] = Counter()

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        found = list(weights.stored_weights(module))
        named = inspect.signature(module.forward).bind(*args, **kwargs).arguments if found else {}
        for weight, stored in found:
            parameter, axis = stored.parameter, weight.outputs_axis
            call = layers.Call(named, output, parameter, None if axis is None else parameter.shape[axis])
            uses[id(parameter)] += weight.uses(call) / sample.count  # type: ignore[assignment]

    hooks = [module.register_forward_hook(count, with_kwargs=True) for module in model.modules()]
    with torch.no_grad():
        sample.run(model, sample.count, sample.count)
    for hook in hooks:
        hook.remove()
    found = weights.find_weights(model).items()
    return {label: float(uses[id(weight.stored.parameter)]) for label, weight in found}


def multiply_adds(kept: Mapping[str, Tensor], uses: Mapping[str, float]) -> float:
    """Multiply-adds of one sample under these masks; `uses` are from `count_uses`."""
    return sum(count * uses[label] for label, (count, _) in masks.kept_counts(kept).items())


def multiply_adds_share(kept: Mapping[str, Tensor], uses: Mapping[str, float]) -> float:
    """The share of the dense model's multiply-adds that masks leave, in [0, 1]; 1 where the dense model takes none."""
    counts = masks.kept_counts(kept)
    dense = sum(total * uses[label] for label, (_, total) in counts.items())
    return multiply_adds(kept, uses) / dense if dense else 1.0
