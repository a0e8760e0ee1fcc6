"""A smaller dense network from a sparse one: outputs that nothing computes or nothing reads are removed for good.

An output of a layer that has lost all its weights is a constant, and what it adds to its readers goes into their
biases; one that no reader has a weight for is not missed. What is left computes the same, up to rounding.
"""

import copy

import torch
from torch import Tensor, nn

from tune_prune.export import channels
from tune_prune.export.channels import Channels
from tune_prune.export.resizing import by_channel, keep_channels, set_tensor
from tune_prune.pruning.masks import TRANSPOSED

ROUNDING = 1e-4
"""How far outputs may lie apart, as a share of the greatest of them, that were added up in another order."""


@torch.no_grad()
def compact(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy, for inference alone, without what nothing computes or reads; `inputs` are a few samples, float [n, ...].

    Raises a `UserError` where the model cannot be traced.
    """
    smaller = copy.deepcopy(model).eval().requires_grad_(False)
    chains = channels.find_channels(smaller)
    while sum(_reduce(smaller, chain, inputs) for chain in chains):  # what goes may leave others unread
        pass
    before, after = copy.deepcopy(model).eval()(inputs), smaller(inputs)
    apart = float((before - after).abs().max() / before.abs().max().clamp_min(1e-12))
    if not apart <= ROUNDING:
        raise RuntimeError(f"the smaller network's outputs are {apart:.2g} of the greatest away from the model's")
    return smaller


def _reduce(model: nn.Module, chain: Channels, inputs: Tensor) -> bool:
    """Remove what can go of a layer's outputs; whether anything did."""
    layer, readers = model.get_submodule(chain.layer), [model.get_submodule(name) for name in chain.readers]
    computed = by_channel(layer, reads=False).any(1)
    weights = [by_channel(reader, reads=True).reshape(len(computed), -1) for reader in readers]
    keep = torch.stack([weight.any(1) for weight in weights]).any(0)
    constant = (keep & ~computed).nonzero().flatten().tolist()
    seen = _layer_inputs(model, readers, inputs) if constant else []
    for index in constant:
        if int(keep.sum()) == 1:
            break  # a layer without outputs is none
        values = [_channel_values(value, layer, index, len(computed)) for value in seen]
        if all(_foldable(reader, value) for reader, value in zip(readers, values, strict=True)):
            for reader, value in zip(readers, values, strict=True):
                _fold(reader, value, index, len(computed))
            keep[index] = False
    if not keep.any():
        keep[0] = True  # likewise; nobody reads it
    if keep.all():
        return False
    for module in (layer, *map(model.get_submodule, chain.norms)):
        keep_channels(module, keep)
    for reader in readers:
        keep_channels(reader, keep, reads=True)
    return True


def _layer_inputs(model: nn.Module, readers: list[nn.Module], inputs: Tensor) -> list[Tensor]:
    """What each of these layers is given for the first of the inputs."""
    found: dict[int, Tensor] = {}
    hooks = [r.register_forward_pre_hook(lambda module, args: found.update({id(module): args[0][0]})) for r in readers]
    model(inputs[:2])
    for hook in hooks:
        hook.remove()
    return [found[id(reader)] for reader in readers]


def _channel_values(value: Tensor, layer: nn.Module, index: int, count: int) -> Tensor:
    """The values of one of the `count` channels of a layer at all places; where these are flattened, side by side."""
    if isinstance(layer, nn.Linear):
        return value[..., index].flatten()
    return value.reshape(count, -1)[index]


def _foldable(reader: nn.Module, values: Tensor) -> bool:
    """Whether what a constant channel adds to a layer's output is the same everywhere."""
    if not values.any():
        return True
    if isinstance(reader, nn.Linear):
        return True
    padding = reader.padding
    padded = padding != "valid" if isinstance(padding, str) else any(padding)  # type: ignore[arg-type]
    return not padded and not isinstance(reader, TRANSPOSED) and bool((values == values[0]).all())


def _fold(reader: nn.Module, values: Tensor, index: int, count: int) -> None:
    """Add what a constant channel contributes to a layer's output to its bias."""
    if not values.any():
        return
    weight: Tensor = reader.weight  # type: ignore[assignment]
    if isinstance(reader, nn.Linear):
        own = weight.view(len(weight), count, -1)[:, index]
        added = own @ values[: own.shape[1]]
    else:
        added = weight[:, index].flatten(1).sum(1) * values[0]
    bias: Tensor | None = reader.bias  # type: ignore[assignment]
    set_tensor(reader, "bias", added if bias is None else bias + added)
