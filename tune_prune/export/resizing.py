"""Layers and batch norms of other sizes: which of their tensors have a place for each channel, and how to take some."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning.masks import TRANSPOSED


def channel_axis(layer: nn.Module, *, reads: bool) -> int:
    """The axis of a layer's weight along which the channels lie that it reads, or that it computes."""
    return int(reads != isinstance(layer, TRANSPOSED))


def by_channel(layer: nn.Module, *, reads: bool) -> Tensor:
    """A layer's weight, [channels, rest], by the channels that it reads or computes."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.movedim(channel_axis(layer, reads=reads), 0).flatten(1)


def _places(module: nn.Module, reads: bool) -> Iterator[tuple[str, int]]:
    """The tensors that have a place for each channel, and along which axis."""
    if isinstance(module, _BatchNorm):
        yield from ((name, 0) for name in ("weight", "bias", "running_mean", "running_var"))
        return
    yield "weight", channel_axis(module, reads=reads)
    if not reads:
        yield "bias", 0


def keep_channels(module: nn.Module, keep: Tensor, *, reads: bool = False) -> None:
    """Keep these of the channels, bool [channels], that a module computes, normalises or reads.

    Where channels were flattened, a channel's places lie together.
    """
    for name, along in _places(module, reads):
        value = getattr(module, name)
        if value is not None:
            repeated = keep.repeat_interleave(value.shape[along] // len(keep))
            set_tensor(module, name, value.index_select(along, repeated.nonzero().flatten()))


def set_tensor(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a module another tensor, and the sizes that go with its shape. A parameter is not trained any more."""
    if name in module._buffers:
        module._buffers[name] = value
    else:
        setattr(module, name, nn.Parameter(value, requires_grad=False))
    if isinstance(module, _BatchNorm) and value.dim():
        module.num_features = len(value)
    elif name == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = value.shape
    elif name == "weight" and hasattr(module, "out_channels"):
        computed, read = (value.shape[channel_axis(module, reads=reads)] for reads in (False, True))
        groups = int(module.groups)  # type: ignore[arg-type]  # the second axis lists those of one group
        by_group = (groups, 1) if isinstance(module, TRANSPOSED) else (1, groups)
        vars(module).update(out_channels=computed * by_group[0], in_channels=read * by_group[1])


@torch.no_grad()
def load_resized(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Give a model other weights, and its modules the sizes that these have.

    Raises a `UserError` that names `source` where weights are missing, or have no place in the model.
    """
    placed = set()
    for name, module in model.named_modules():
        for key in [*module._parameters, *module._buffers]:
            full = f"{name}.{key}" if name else key
            if full in weights:
                set_tensor(module, key, weights[full])
                placed.add(full)
            elif getattr(module, key) is not None and full in model.state_dict():
                raise UserError(f"{source}: {full} is missing; the file is damaged, or another model's")
    if set(weights) - placed:
        raise UserError(f"{source}: the model has no place for {format_names(sorted(set(weights) - placed))}")
