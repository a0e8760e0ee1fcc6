"""Removes channels whose weights are all zero or that have no consumer: a smaller dense network from a sparse one.

The output of a channel without weights is a constant; what it adds to its consumers moves into their biases. A channel
for which no consumer has a weight is dropped. The smaller network computes the same outputs, up to rounding.
"""

import copy

import torch
from torch import Tensor, nn

from tune_prune.export import channels
from tune_prune.export.channels import Channels
from tune_prune.export.comparison import Difference
from tune_prune.export.resizing import flatten_by_channel, keep_channels, set_tensor
from tune_prune.pruning.layers import TRANSPOSED
from tune_prune.tasks.batches import Batch, call_model, iterate_tensors
from tune_prune.tasks.samples import take_first

ROUNDING = 1e-4
"""The largest difference of outputs, as a share of the largest output, that another order of summation may make."""


@torch.no_grad()
def compact(model: nn.Module, inputs: Batch) -> nn.Module:
    """Copies a model for inference alone, without the channels that can go.

    `inputs` are a few samples, as `call_model` takes them.

    Raises a `UserError` where the model cannot be traced, and a `RuntimeError` where the outputs of copy and model for
    `inputs` differ by more than `ROUNDING`.
    """
    compacted = copy.deepcopy(model).eval().requires_grad_(False)
    found = channels.find_channels(compacted)
    while sum(
        _remove_channels(compacted, one, inputs) for one in found
    ):  # may leave further channels without a consumer
        pass
    outputs = [call_model(one, inputs) for one in (copy.deepcopy(model).eval(), compacted)]
    difference = Difference()
    difference.add(*map(list, map(iterate_tensors, outputs)))
    if not difference.share <= ROUNDING:
        what = f"{difference.share:.2g} of the largest"
        raise RuntimeError(f"the compacted model's outputs differ from the model's by {what}")
    return compacted


def _remove_channels(model: nn.Module, found: Channels, inputs: Batch) -> bool:
    """Removes the output channels of a layer that can go; whether there were any. One always stays."""
    layer, consumers = model.get_submodule(found.layer), [model.get_submodule(name) for name in found.consumers]
    computed = flatten_by_channel(layer).any(1)
    weights = [flatten_by_channel(one, of_inputs=True).reshape(len(computed), -1) for one in consumers]
    keep = torch.stack([weight.any(1) for weight in weights]).any(0)
    constant = (keep & ~computed).nonzero().flatten().tolist()
    consumed = _capture_inputs(model, consumers, inputs) if constant else []
    for index in constant:
        if int(keep.sum()) == 1:
            break  # PyTorch has no layer without outputs
        values = [_channel_values(value, layer, index, len(computed)) for value in consumed]
        if all(_can_fold(consumer, value) for consumer, value in zip(consumers, values, strict=True)):
            for consumer, value in zip(consumers, values, strict=True):
                _fold_into_bias(consumer, value, index, len(computed))
            keep[index] = False
    if not keep.any():
        keep[0] = True  # for the same reason; it has no consumer
    if keep.all():
        return False
    for module in (layer, *map(model.get_submodule, found.norms)):
        keep_channels(module, keep)
    for consumer in consumers:
        keep_channels(consumer, keep, of_inputs=True)
    return True


def _capture_inputs(model: nn.Module, layers: list[nn.Module], inputs: Batch) -> list[Tensor]:
    """The input of each of these layers for the first of the samples."""
    captured: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, args: captured.update({id(module): args[0][0]}))
        for layer in layers
    ]
    call_model(model, take_first(inputs, 2))
    for hook in hooks:
        hook.remove()
    return [captured[id(layer)] for layer in layers]


def _channel_values(value: Tensor, layer: nn.Module, index: int, count: int) -> Tensor:
    """The values of one of a layer's `count` output channels, [positions]; `value` may be flattened."""
    if isinstance(layer, nn.Linear):
        return value[..., index].flatten()
    return value.reshape(count, -1)[index]


def _can_fold(consumer: nn.Module, values: Tensor) -> bool:
    """Whether a constant channel adds the same to a consumer's output at every position."""
    if not values.any():
        return True
    if isinstance(consumer, nn.Linear):
        return True
    padding = consumer.padding
    padded = padding != "valid" if isinstance(padding, str) else any(padding)  # type: ignore[arg-type]
    return not padded and not isinstance(consumer, TRANSPOSED) and bool((values == values[0]).all())


def _fold_into_bias(consumer: nn.Module, values: Tensor, index: int, count: int) -> None:
    """Adds the contribution of a constant channel to a consumer's bias; without one, the consumer gets one."""
    if not values.any():
        return
    weight: Tensor = consumer.weight  # type: ignore[assignment]
    if isinstance(consumer, nn.Linear):
        of_channel = weight.view(len(weight), count, -1)[:, index]
        added = of_channel @ values[: of_channel.shape[1]]
    else:
        added = weight[:, index].flatten(1).sum(1) * values[0]
    bias: Tensor | None = consumer.bias  # type: ignore[assignment]
    set_tensor(consumer, "bias", added if bias is None else bias + added)
