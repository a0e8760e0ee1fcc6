"""The loss's change without each single weight, exactly: torch7-pruner's `emp` took one run a weight.

Without w[o, i] a layer's output changes in unit o alone, by -w times its input i. So the layer's input and output are
computed once, the changed outputs of many weights are stacked as one batch, and only what comes after the layer is run.
That needs to know what comes after: the layers of an `nn.Sequential`. Any other layer is measured one weight at a time.

Memory: about four tensors of `CHUNK` numbers, 0.5 GB for any layer.
"""

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.pruning.statistics import Context, statistics
from tune_prune.tasks.models import sequential_parts
from tune_prune.tasks.splits import Split, as_float

IMAGES = 256
"""Images of the sample that the loss is measured on."""

CHUNK = 2**23
"""Numbers in the stacked outputs of a layer: 32 MiB."""

SAY_EVERY = 5.0
"""Seconds between two words on how far it is."""


@statistics.register("loss_change")
@torch.no_grad()
def loss_change(context: Context) -> dict[str, Tensor]:
    """How the mean cross-entropy over `IMAGES` images of the sample changes without each weight, all others as are.

    A weight that is zero already changes nothing, and is not measured.
    """
    model = context.model.eval()
    split = Split(as_float(context.sample.inputs[:IMAGES]), context.sample.labels[:IMAGES])
    base = float(F.cross_entropy(model(split.inputs), split.labels))
    found = {}
    for label, weight in context.wanted().items():
        changes = torch.zeros(weight.numel(), device=weight.device)
        todo = weight.flatten().nonzero().flatten()
        began, said, done = time.monotonic(), time.monotonic(), 0
        for index, measured in _measure(model, weight, split, todo):
            changes[index] = measured - base
            done += len(index)
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                left = (said - began) / done * (len(todo) - done)
                context.say(f"emp: layer {label}: {done:,} of {len(todo):,} weights, about {left:.0f} s left")
        found[label] = changes.reshape(weight.shape)
    return found


def _measure(model: nn.Module, weight: Tensor, split: Split, todo: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(flat indices, losses without them), chunk by chunk."""
    at = _position(model, weight)
    if at is None:
        return _one_by_one(model, weight, split, todo)
    return _stacked(model, at, split, todo)


def _position(model: nn.Module, weight: Tensor) -> int | None:
    """Where in a Sequential the one layer with this weight is, if its output changes in one unit a weight."""
    users = [module for module in model.modules() if any(p is weight for p in module.parameters(recurse=False))]
    direct = [i for i, module in enumerate(sequential_parts(model)) if any(module is user for user in users)]
    if len(users) != 1 or len(direct) != 1:
        return None  # inside a part of the Sequential, or used more than once
    layer = users[0]
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    plain = plain and not isinstance(layer.padding, str)
    return direct[0] if plain or isinstance(layer, nn.Linear) else None


def _stacked(model: nn.Module, at: int, split: Split, todo: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    parts = sequential_parts(model)
    layer, after = parts[at], nn.Sequential(*parts[at + 1 :])
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    inputs = nn.Sequential(*parts[:at])(split.inputs)
    outputs = layer(inputs)
    if isinstance(layer, nn.Linear) and inputs.dim() != 2:
        yield from _one_by_one(model, layer.weight, split, todo)
        return
    # [input of the weight, n, ...]: what a weight of 1 adds to its unit
    added = inputs.T if isinstance(layer, nn.Linear) else _columns(layer, inputs, outputs)
    weight = layer.weight.flatten()
    unit_of = layer.weight[0].numel()
    for index in todo.split(max(1, CHUNK // outputs.numel())):
        k = torch.arange(len(index), device=index.device)
        stacked = outputs.expand(len(index), *outputs.shape).clone()
        unit, source = index // unit_of, index % unit_of
        change = added[source] * weight[index].reshape(-1, *[1] * (added.dim() - 1))
        stacked[k, :, unit] -= change
        scores = after(stacked.flatten(0, 1))
        targets = split.labels.repeat(len(index))
        losses = F.cross_entropy(scores, targets, reduction="none").reshape(len(index), -1)
        yield index, losses.mean(1)


def _columns(layer: nn.Conv2d, inputs: Tensor, outputs: Tensor) -> Tensor:
    """What each weight of a convolution's filter is multiplied with: [c * kh * kw, n, height, width] of the output."""
    columns = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return columns.transpose(0, 1).reshape(columns.shape[1], len(inputs), *outputs.shape[2:])


def _one_by_one(model: nn.Module, weight: Tensor, split: Split, todo: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Any model: set a weight to zero, run, set it back."""
    for index in todo:
        at = tuple(int(i) for i in torch.unravel_index(index, weight.shape))
        value = weight[at].clone()
        weight[at] = 0
        try:
            loss = F.cross_entropy(model(split.inputs), split.labels)
        finally:
            weight[at] = value
        yield index[None], loss[None]
