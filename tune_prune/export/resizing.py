"""Changes the number of channels of layers and batch norms, with all tensors and attributes that depend on it."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning.layers import TRANSPOSED

RESIZABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
"""Layers whose channels can be removed; recurrent layers, embeddings and users' own layers keep theirs."""


def is_resizable(module: nn.Module) -> bool:
    """Whether a module's channels can be removed: not where its weight is computed from other tensors."""
    return isinstance(module, RESIZABLE) and "weight" in module._parameters


def channel_axis(layer: nn.Module, *, of_inputs: bool) -> int:
    """The axis of a layer's weight that its input channels lie along, or else its output channels."""
    return int(of_inputs != isinstance(layer, TRANSPOSED))


def flatten_by_channel(layer: nn.Module, *, of_inputs: bool = False) -> Tensor:
    """A layer's weight as [channels, rest], by its output channels, or else by its input channels."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.movedim(channel_axis(layer, of_inputs=of_inputs), 0).flatten(1)


def keep_channels(module: nn.Module, keep: Tensor, *, of_inputs: bool = False) -> None:
    """Keeps these output (or input) channels of a layer, or these features of a batch norm; `keep` is bool [channels].

    Where a module takes flattened channels, the positions of a channel lie together and are kept or removed as one.
    """
    for name, axis in _channel_tensors(module, of_inputs):
        value = getattr(module, name)
        if value is not None:
            repeated = keep.repeat_interleave(value.shape[axis] // len(keep))
            set_tensor(module, name, value.index_select(axis, repeated.nonzero().flatten()))


def _channel_tensors(module: nn.Module, of_inputs: bool) -> Iterator[tuple[str, int]]:
    """The names of the tensors that have entries for each channel, and the axis of the channels in each."""
    if isinstance(module, _BatchNorm):
        yield from ((name, 0) for name in ("weight", "bias", "running_mean", "running_var"))
        return
    yield "weight", channel_axis(module, of_inputs=of_inputs)
    if not of_inputs:
        yield "bias", 0


def set_tensor(module: nn.Module, name: str, value: Tensor) -> None:
    """Replaces a tensor of a module and sets the sizes that follow from its shape; a parameter is frozen."""
    if name in module._buffers:
        module._buffers[name] = value.data
    else:
        parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
        setattr(module, name, parameter)
    if isinstance(module, _BatchNorm) and value.dim():
        module.num_features = len(value)
    elif name == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = value.shape
    elif name == "weight" and hasattr(module, "out_channels"):
        outputs, inputs = (value.shape[channel_axis(module, of_inputs=of_inputs)] for of_inputs in (False, True))
        groups = int(module.groups)  # type: ignore[arg-type]  # the second axis lists the channels of one group
        by_group = (groups, 1) if isinstance(module, TRANSPOSED) else (1, groups)
        vars(module).update(out_channels=outputs * by_group[0], in_channels=inputs * by_group[1])


@torch.no_grad()
def load_resized(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Gives a model other weights, and its modules the sizes of these weights; `weights` are as in `own_state`.

    Raises a `UserError` that names `source` where weights are missing or have another number of axes, or the model has
    no tensor of their name.
    """
    first_names = _first_names(model)
    given = {name: nn.Parameter(value, requires_grad=False) for name, value in weights.items()}
    placed = set()
    for name, module in model.named_modules(remove_duplicate=False):
        for key in [*module._parameters, *module._buffers]:
            full, before = f"{name}.{key}" if name else key, getattr(module, key)
            first = first_names.get(full, full)
            if first in given:
                if before is not None and before.dim() != given[first].dim():
                    raise UserError(f"{source}: {first} has {given[first].dim()} axes, the model's {before.dim()}")
                set_tensor(module, key, given[first])
                placed.add(first)
            elif before is not None and full in first_names:
                raise UserError(f"{source}: {first} is missing; the file is damaged, or another model's")
    if set(weights) - placed:
        raise UserError(f"{source}: the model has no place for {format_names(sorted(set(weights) - placed))}")


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict with each tensor once: of names that share one, as tied weights do, the first."""
    first_names = _first_names(model)
    return {name: value for name, value in model.state_dict().items() if first_names[name] == name}


def _first_names(model: nn.Module) -> dict[str, str]:
    """By each name of the state dict, the first name of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}
