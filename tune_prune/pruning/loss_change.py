"""Measures exactly how the loss changes without each single weight, as torch7-pruner's `emp` does in a run per weight.

Here many weights share a run. Without w[o, i] a layer's output changes in unit o alone, by -w times its input i. So the
layer's input and output are computed once, the changed outputs of many weights are stacked as one batch, and only the
layers after it are run. This works in an `nn.Sequential`, where the layers after it are known; a layer of any other
model takes a run per weight.

Memory: about four tensors of `CHUNK` numbers, 0.5 GB for any layer.
"""

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.pruning.parametrized import Stored
from tune_prune.pruning.statistics import Context, statistics
from tune_prune.pruning.weights import find_weights
from tune_prune.tasks.models import sequential_parts
from tune_prune.tasks.splits import AnySplit, Split

IMAGES = 256
"""Samples on which the loss is measured, about."""

CHUNK = 2**23
"""Numbers in the stacked outputs of a layer: 32 MiB."""

REPORT_SECONDS = 5.0
"""Seconds between two reports of progress."""


@statistics.register("loss_change")
@torch.no_grad()
def loss_change(context: Context) -> dict[str, Tensor]:
    """The change of the mean loss over `IMAGES` samples without each weight, all others in place.

    A weight that is zero changes nothing and is not measured.
    """
    model = context.model.eval()
    sample = context.sample.head(IMAGES)
    if isinstance(sample, Split):
        sample = Split(sample.as_float(sample.inputs), sample.labels)
    base = float(_measure_loss(model, sample))
    changes_by_layer = {}
    stored = {label: weight.stored for label, weight in find_weights(model).items()}
    for label, weight in context.select_weights().items():
        changes = torch.zeros(weight.numel(), device=weight.device)
        nonzero = weight.flatten().nonzero().flatten()
        started, reported, done = time.monotonic(), time.monotonic(), 0
        for index, losses in _measure_losses(model, weight, stored[label], sample, nonzero):
            changes[index] = (losses - base).to(changes)  # losses have the type of the model's scores
            done += len(index)
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                left = (reported - started) / done * (len(nonzero) - done)
                context.say(f"emp: layer {label}: {done:,} of {len(nonzero):,} weights, about {left:.0f} s left")
        changes_by_layer[label] = changes.reshape(weight.shape)
    return changes_by_layer


def _measure_loss(model: nn.Module, sample: AnySplit) -> Tensor:
    """The mean loss over a sample, a scalar; the inputs of a `Split` are floats."""
    if isinstance(sample, Split):
        return F.cross_entropy(model(sample.inputs), sample.labels)
    return torch.tensor(sample.mean_loss(model))


def _measure_losses(
    model: nn.Module, weight: Tensor, stored: Stored, sample: AnySplit, todo: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (flat indices of weights, the loss without each of them), chunk by chunk; `todo` are all the indices."""
    position = _find_position(model, weight)
    if position is None or not isinstance(sample, Split):  # of class scores alone a batch can be stacked
        return _measure_one_by_one(model, weight, stored, sample, todo)
    return _measure_stacked(model, position, stored, sample, todo)


def _find_position(model: nn.Module, weight: Tensor) -> int | None:
    """Finds a weight's layer in an `nn.Sequential`; None where the weight changes more than one unit of its output.

    Also None where several layers share the weight, or where the layer lies inside a part of the Sequential.
    """
    users = [module for module in model.modules() if any(p is weight for p in module.parameters(recurse=False))]
    direct = [i for i, module in enumerate(sequential_parts(model)) if any(module is user for user in users)]
    if len(users) != 1 or len(direct) != 1:
        return None
    layer = users[0]
    if layer._parameters.get("weight") is not weight:  # it is computed from this parameter, or is no weight at all
        return None
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    plain = plain and not isinstance(layer.padding, str)
    return direct[0] if plain or isinstance(layer, nn.Linear) else None


def _measure_stacked(
    model: nn.Module, position: int, stored: Stored, split: Split, todo: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields as `_measure_losses` does, for the layer at a position of an `nn.Sequential`, many weights in one run."""
    parts = sequential_parts(model)
    layer, layers_after = parts[position], nn.Sequential(*parts[position + 1 :])
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    inputs = nn.Sequential(*parts[:position])(split.inputs)
    outputs = layer(inputs)
    if isinstance(layer, nn.Linear) and inputs.dim() != 2:
        yield from _measure_one_by_one(model, layer.weight, stored, split, todo)
        return
    # [input of the weight, n, ...]: a weight w adds w times this to its unit
    added = inputs.T if isinstance(layer, nn.Linear) else _unfold_inputs(layer, inputs, outputs)
    weight = layer.weight.flatten()
    unit_size = layer.weight[0].numel()
    for index in todo.split(max(1, CHUNK // outputs.numel())):
        k = torch.arange(len(index), device=index.device)
        stacked = outputs.expand(len(index), *outputs.shape).clone()
        unit, source = index // unit_size, index % unit_size
        change = added[source] * weight[index].reshape(-1, *[1] * (added.dim() - 1))
        stacked[k, :, unit] -= change
        scores = layers_after(stacked.flatten(0, 1))
        targets = split.labels.repeat(len(index))
        losses = F.cross_entropy(scores, targets, reduction="none").reshape(len(index), -1)
        yield index, losses.mean(1)


def _unfold_inputs(layer: nn.Conv2d, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Unfolds the inputs of each weight of a filter: [c * kh * kw, n, height, width], sizes of the output."""
    columns = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return columns.transpose(0, 1).reshape(columns.shape[1], len(inputs), *outputs.shape[2:])


def _measure_one_by_one(
    model: nn.Module, weight: Tensor, stored: Stored, sample: AnySplit, todo: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields as `_measure_losses` does, for any model: sets a weight to zero, runs the model, sets the weight back."""
    for index in todo:
        position = tuple(int(i) for i in torch.unravel_index(index, weight.shape))
        value = weight[position].clone()
        normed = [] if stored.norm is None else [stored.parameter, stored.norm]
        before = [parameter.clone() for parameter in normed]
        weight[position] = 0
        if normed:  # without its last weight an output has no norm
            stored.apply(stored.parameter != 0)
        try:
            loss = _measure_loss(model, sample)
        finally:
            weight[position] = value
            for parameter, whole in zip(normed, before, strict=True):
                parameter.copy_(whole)
        yield index[None], loss[None]
