"""Removes channels from the tensors of a model, and keeps with them the numbers of channels that modules have."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import EllipsisType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from tune_prune.pruning.channels.attention import narrow_attention
from tune_prune.pruning.channels.blocks import skip_block
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.norms import keep_all_in_norm
from tune_prune.pruning.channels.removal import find_kept, join_by_name, name_weights, split_by_label
from tune_prune.pruning.channels.tracer import find_owner, named_tensors
from tune_prune.pruning.layers import TRANSPOSED

CONV1D = "transformers.pytorch_utils.Conv1D"
"""A linear layer of Hugging Face's, whose weight is [inputs, outputs]."""

OWN = "tune_prune.pruning."
"""How the names of modules begin whose classes take the place of others, as of norms that leave out channels."""

Axis = tuple[str, int]
"""The name of a parameter or buffer, and the number of one of its axes."""


def find_staying(groups: Sequence[Group], kept: Sequence[Tensor]) -> dict[Axis, Tensor]:
    """The positions that stay along each axis that lists channels, bool [size]; `kept` is bool [channels] by group.

    Blocks, which leave as a whole, are not listed.
    """
    staying: dict[Axis, Tensor] = {}
    for group, keep in zip(groups, kept, strict=True):
        for member in group.members if not group.blocks else ():
            axis, of_axis = (member.tensor, member.axis), (member.channels < 0) | keep[member.channels]
            staying[axis] = of_axis & staying.get(axis, torch.ones_like(of_axis))
    return staying


def remove_channels(model: nn.Module, groups: Sequence[Group], kept: Sequence[Tensor]) -> list[Group]:
    """Removes channels from a model: `kept` is bool [channels] of each group. Returns what is left of the groups."""
    for group, keep in zip(groups, kept, strict=True):
        for block in [name for name, stays in zip(group.blocks, keep.tolist(), strict=False) if not stays]:
            skip_block(model.get_submodule(block), group.items)
    numbers = _count_numbers(model, groups, kept)
    tensors = named_tensors(model)
    staying = {axis: of_axis for axis, of_axis in find_staying(groups, kept).items() if axis[0] in tensors}
    depthwise = {member.tensor for group in groups for member in group.members if member.role == "depthwise"}
    for (name, axis), of_axis in staying.items():
        if not bool(of_axis.all()):
            _keep_positions(model, name, axis, of_axis, by_group=name in depthwise and axis == 0)
    set_numbers(model, numbers)
    _drop_caches(model)
    left = []
    for group, keep in zip(groups, kept, strict=True):
        group = group.keep(keep)
        members = [member for member in group.members if member.tensor in tensors]
        if not group.blocks:
            members = [replace(m, channels=m.channels[staying[m.tensor, m.axis]]) for m in members]
        if members:  # none of a group inside a block that has left
            left.append(replace(group, members=tuple(members)))
    return left


def _drop_caches(model: nn.Module) -> None:
    """Lets modules drop what they keep between calls in evaluation mode, as when they are trained; the mode stays."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    for module, mode in modes:
        module.training = mode


def _count_numbers(model: nn.Module, groups: Sequence[Group], kept: Sequence[Tensor]) -> dict[str, dict[str, int]]:
    """The numbers that modules hold after channels have left, by the module's name and the attribute."""
    numbers: dict[str, dict[str, int]] = {}
    known = dict(model.named_modules())
    for group, keep in zip(groups, kept, strict=True):
        for number in group.held if not bool(keep.all()) else ():
            if number.module in known and number.attribute in (held := list_numbers(known[number.module])):
                of_module = numbers.setdefault(number.module, {})
                before = of_module.get(number.attribute, held[number.attribute])
                of_module[number.attribute] = before - int((~keep[number.channels]).sum())
    return numbers


def list_numbers(module: nn.Module) -> dict[str, int]:
    """The whole numbers that a module holds, by the name of its attribute, with a place where it is a tuple or a list.

    Those of PyTorch's own modules follow from their weights.
    """
    own = next(kind for kind in type(module).__mro__ if not kind.__module__.startswith(OWN))
    if own.__module__.startswith("torch.nn.") or _is_conv1d(module):
        return {}
    found: dict[str, int] = {}
    for name, value in vars(module).items():
        values = {f"{name}.{place}": one for place, one in enumerate(value)} if type(value) in (tuple, list) else {}
        found |= {key: one for key, one in (values or {name: value}).items() if type(one) is int}
    return found


def _is_conv1d(module: nn.Module) -> bool:
    return f"{type(module).__module__}.{type(module).__name__}" == CONV1D


def set_numbers(model: nn.Module, numbers: Mapping[str, Mapping[str, int]]) -> None:
    """Sets numbers that modules hold, by the module's name and the attribute as `list_numbers` names it."""
    for name, of_module in numbers.items():
        attributes = vars(model.get_submodule(name))
        for key, value in of_module.items():
            attribute, _, place = key.partition(".")
            if place:
                values = list(attributes[attribute])
                values[int(place)] = value
                attributes[attribute] = type(attributes[attribute])(values)
            else:
                attributes[attribute] = value


def _keep_positions(model: nn.Module, name: str, axis: int, keep: Tensor, *, by_group: bool) -> None:
    """Keeps these positions, bool [size], along an axis of a parameter or buffer, in all modules that share it."""
    before = getattr(find_owner(model, name), name.rpartition(".")[2])
    value = before.detach().index_select(axis, keep.nonzero().flatten().to(before.device))
    if before.dim() == 4 and before.is_contiguous(memory_format=torch.channels_last):
        value = value.contiguous(memory_format=torch.channels_last)
    if isinstance(before, nn.Parameter):
        value = nn.Parameter(value, requires_grad=before.requires_grad)
    for module in list(model.modules()):
        for tensors in (module._parameters, module._buffers):
            for own in [own for own, tensor in tensors.items() if tensor is before]:
                set_tensor(module, own, value, by_group=by_group)


def set_tensor(module: nn.Module, name: str, value: Tensor, *, by_group: bool = False) -> None:
    """Replaces a tensor of a module and sets the sizes that follow from its shape; a tensor becomes a frozen parameter.

    `by_group`: the groups of a convolution have an input each, and their number follows that of its outputs.
    """
    before = getattr(module, name)
    if before is not None and value.shape != before.shape:
        keep_all_in_norm(module)
    if name in module._buffers:
        module._buffers[name] = value.data
    else:
        parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
        setattr(module, name, parameter)
    if isinstance(module, nn.MultiheadAttention) and name.endswith("proj_weight") and value.shape != before.shape:
        narrow_attention(module, value.shape[1])
    elif isinstance(module, _NormBase) and value.dim():
        module.num_features = len(value)
    elif isinstance(module, nn.GroupNorm) and name == "weight":
        module.num_groups = max(module.num_groups * len(value) // len(before), 1)  # whole groups leave
        module.num_channels = len(value)
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and name == "weight":
        module.normalized_shape = tuple(value.shape)
    elif isinstance(module, nn.RNNBase) and name == "weight_hh_l0":
        module.hidden_size = value.shape[1]
    elif isinstance(module, nn.RNNBase) and name == "weight_ih_l0":
        module.input_size = value.shape[1]
    elif name == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = value.shape
    elif name == "weight" and _is_conv1d(module):
        vars(module).update(nx=value.shape[0], nf=value.shape[1])
    elif name == "weight" and hasattr(module, "out_channels"):
        groups = int(module.groups)  # type: ignore[arg-type]
        groups = groups * len(value) // len(before) if by_group else groups
        first, second = len(value), value.shape[1] * groups  # the second axis lists the channels of one group
        is_transposed = isinstance(module, TRANSPOSED)
        inputs, outputs = (first, second) if is_transposed else (second, first)
        vars(module).update(in_channels=inputs, out_channels=outputs, groups=groups)


@contextmanager
def narrowed(
    model: nn.Module, groups: Sequence[Group], masks: Mapping[str, Tensor]
) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
    """Yields a copy of a model without what masks have removed of groups, and its masks; at the end, puts it back.

    It computes and learns the same in less time, up to rounding. Where no channel is gone, the model itself is yielded.
    """
    by_name = join_by_name(model, masks)
    kept = [find_kept(group, by_name).cpu() for group in groups]
    if all(bool(of_group.all()) for of_group in kept):
        yield model, dict(masks)
        return
    small, staying = copy.deepcopy(model), find_staying(groups, kept)
    remove_channels(small, groups, kept)
    small_masks = {name: by_name[name] for name in name_weights(small)}
    for name, mask in small_masks.items():
        for axis in range(mask.dim()):
            if (name, axis) in staying:
                positions = staying[name, axis].nonzero().flatten().to(mask.device)
                small_masks[name] = small_masks[name].index_select(axis, positions)
    yield small, split_by_label(small, small_masks)
    with torch.no_grad():
        whole = named_tensors(model)
        for name, value in named_tensors(small).items():
            of_axes = {axis: kept for (tensor, axis), kept in staying.items() if tensor == name}
            whole[name][find_positions(whole[name], of_axes)] = value


def find_positions(tensor: Tensor, staying: Mapping[int, Tensor]) -> tuple[Tensor, ...] | EllipsisType:
    """The positions of a tensor that stay, as an index; `staying` is bool [size] by axis, where not all do."""
    if not staying:
        return ...
    positions = [
        staying[axis].nonzero().flatten() if axis in staying else torch.arange(size)
        for axis, size in enumerate(tensor.shape)
    ]
    shapes = [[-1 if at == axis else 1 for at in range(tensor.dim())] for axis in range(tensor.dim())]
    return tuple(one.view(shape).to(tensor.device) for one, shape in zip(positions, shapes, strict=True))
