"""Layer norms that leave out channels which are gone: they compute the mean and variance of those that are left.

The zeros of a channel that masks have removed would count in both otherwise, and the network would not be the one
without the channel.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_plain = False


@contextmanager
def plain_norms() -> Iterator[None]:
    """In the block every layer norm computes over all channels, by the operation that PyTorch has for it."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


class _OverKept(TorchFunctionMode):
    """Computes layer norms over some channels alone; those that are left out have to be zero."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self._kept = kept

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replaces `layer_norm`, and runs everything else as it is."""
        if function is functional.layer_norm:
            return self._normalise(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _normalise(
        self, values: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        kept = self._kept.to(values.dtype)
        count = kept.sum()
        mean = (values * kept).sum(-1, keepdim=True) / count
        centred = (values - mean) * kept
        normalised = centred * torch.rsqrt(centred.square().sum(-1, keepdim=True) / count + eps)
        scaled = normalised if weight is None else normalised * weight
        return scaled if bias is None else scaled + bias


class _Kept:
    """Mixed into a class of layer norms: `kept_channels` bool [channels] says over which it computes."""

    kept_channels: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes what the class does, over the channels that are left."""
        if _plain:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        with _OverKept(self.kept_channels):
            return super().forward(*args, **kwargs)  # type: ignore[misc]


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def keep_in_norm(module: nn.LayerNorm, kept: Tensor) -> None:
    """Makes a layer norm compute over these channels alone, bool [channels]."""
    if not isinstance(module, _Kept):
        kind = type(module)
        if kind not in _classes:
            _classes[kind] = type(f"Kept{kind.__name__}", (_Kept, kind), {})
        module.__class__ = _classes[kind]  # type: ignore[assignment]
        module.register_buffer("kept_channels", kept, persistent=False)
    module.kept_channels = kept.to(module.weight.device)


def keep_all_in_norm(module: nn.LayerNorm) -> None:
    """Makes a layer norm compute over all of its channels again."""
    if isinstance(module, _Kept):
        del module.kept_channels
        module.__class__ = next(kind for kind, kept in _classes.items() if kept is type(module))  # type: ignore[assignment]


def kept_in_norm(module: nn.Module) -> Tensor | None:
    """The channels that a layer norm computes over, bool [channels]; None where it is no such norm or does over all."""
    return module.kept_channels if isinstance(module, _Kept) else None


def kept_by_norm(model: nn.Module) -> dict[str, Tensor]:
    """The channels over which layer norms of a model compute, by name, of those that leave some out."""
    return {name: kept for name, module in model.named_modules() if (kept := kept_in_norm(module)) is not None}


def set_kept_by_norm(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Makes layer norms compute as those did of which `kept_by_norm` has told; all others over all channels."""
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            if name in kept:
                keep_in_norm(module, kept[name])
            else:
                keep_all_in_norm(module)
