"""Finds the groups of a model, of channels from what was seen of a run, and of blocks."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tune_prune.pruning.channels.blocks import find_blocks
from tune_prune.pruning.channels.groups import Group, Member, ModelChannels
from tune_prune.pruning.channels.held import find_held
from tune_prune.pruning.channels.tracer import find_owner, named_tensors, trace
from tune_prune.pruning.granularity import BLOCK, BLOCK_CHANNEL, CHANNEL, HEAD
from tune_prune.pruning.weights import find_weights
from tune_prune.tasks.batches import Batch


def find_groups(model: nn.Module, inputs: Batch, granularity: str = CHANNEL) -> list[Group]:
    """Finds the groups of a granularity: those of blocks, then those of channels or heads.

    `inputs` are a few samples, as `call_model` takes them. Raises a `UserError` where the model branches on data and
    channels are asked for.
    """
    blocks = find_blocks(model, inputs).groups if granularity in (BLOCK, BLOCK_CHANNEL) else []
    if granularity == BLOCK:
        return blocks
    return blocks + find_channels(model, inputs, CHANNEL if granularity == BLOCK_CHANNEL else granularity).groups


def find_channels(model: nn.Module, inputs: Batch, granularity: str = CHANNEL) -> ModelChannels:
    """Finds the groups of channels of a model that can be removed, in the order of the layers that compute them.

    `inputs` are a few samples, as `call_model` takes them. With granularity "head", the groups are those of heads, and
    nothing is said of others. Channels stay where the outputs of the model list them, where an operation mixes them
    that no rule is known for, where they meet a fixed number of zeros, and where a group has fewer than two. The rest
    of a layer's channels can leave. Raises a `UserError` where the model branches on data.
    """
    tracer = trace(model, inputs)
    resolved = tracer.constraints.resolve(tracer.count)
    tensors, outputs = named_tensors(model), _find_outputs(model)
    layers = {name for name, _ in outputs}
    labels = {
        (name, axis): resolved.root[first : first + tensors[name].shape[axis]]
        for (name, axis), first in tracer.first_label.items()
    }
    groups, staying, parts = [], {}, {}
    for label, joined in _join({axis: label for axis, label in outputs.items() if axis in labels}, labels):
        if not len(roots := resolved.find_free(joined)):
            staying[label] = resolved.why_fixed(joined)
            continue
        norms, members = resolved.norms_of(roots), []
        for (name, axis), of_axis in labels.items():
            channels = _find_positions(of_axis, roots)
            if bool((channels >= 0).any()):
                role = _find_role(model, name, (name, axis) in outputs, name in layers)
                members.append(Member(name, axis, channels, role))
        group = Group(label, len(roots), tuple(members), tuple(norms), bool(np.isin(roots, resolved.heads).any()))
        if reason := _why_whole(group):
            staying[label] = reason
        else:
            groups.append(group)
            parts[label] = [(name, [_find_positions(one, roots) for one in of_all]) for name, of_all in resolved.parts]
    if granularity == HEAD:
        groups, staying = [group for group in groups if group.are_heads], {}
    return ModelChannels(find_held(model, inputs, groups, parts), staying)


def _why_whole(group: Group) -> str:
    """Why no channel of a group can be removed, although no operation needs all of them; "" where some can."""
    if group.count < 2:
        return "they hang together, all of them"
    return "" if any(member.role == "input" for member in group.members) else "no layer reads them"


def _find_role(model: nn.Module, name: str, is_output: bool, is_layer: bool) -> str:
    if not is_output:
        return "input" if is_layer else "other"
    owner = find_owner(model, name)
    is_depthwise = getattr(owner, "groups", 1) > 1 and named_tensors(model)[name].shape[1] == 1
    return "depthwise" if is_depthwise else "output"


def _find_outputs(model: nn.Module) -> dict[tuple[str, int], str]:
    """The axes of weights that count what a layer computes, with the labels of the layers, in the order of the model.

    What an embedding computes are its columns.
    """
    names = {id(tensor): name for name, tensor in named_tensors(model).items()}
    found: dict[tuple[str, int], str] = {}
    for label, weight in find_weights(model).items():
        name, axis = names.get(id(weight.stored.parameter)), weight.weight.outputs_axis
        if name is not None and axis is not None:
            owner = find_owner(model, name)
            found.setdefault((name, 1 if isinstance(owner, nn.Embedding | nn.EmbeddingBag) else axis), label)
    return found


def _join(
    outputs: Mapping[tuple[str, int], str], axes: Mapping[tuple[str, int], NDArray[np.int64]]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Joins the axes of outputs that share channels; yields the label of the first of each with its channels."""
    joined: dict[str, set[int]] = {}
    for axis, label in outputs.items():
        roots = set(axes[axis].tolist())
        touching = [name for name, others in joined.items() if others & roots]
        first = touching[0] if touching else label
        joined[first] = roots.union(*(joined[name] for name in touching))
        for name in touching[1:]:
            del joined[name]
    for name, roots in joined.items():
        yield name, np.array(sorted(roots))


def _find_positions(labels: NDArray[np.int64], roots: NDArray[np.int64]) -> Tensor:
    """The position of each label among sorted roots, -1 where it is none of them."""
    at = np.searchsorted(roots, labels).clip(max=len(roots) - 1)
    return torch.from_numpy(np.where(roots[at] == labels, at, -1))
