"""Norms that leave out channels which are gone: they compute the mean and variance of those that are left.

The zeros of a channel that masks have removed would count in both otherwise, and the network would not be the one
without the channel. A norm is a module that reduces over its channels and has a weight for each of them: a layer norm
or an RMS norm, of PyTorch or written by hand.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

REDUCTIONS = {
    "mean": 1, "sum": 1, "var": 1, "std": 1, "var_mean": 1, "std_mean": 1, "norm": 2, "linalg_vector_norm": 2,
}  # fmt: skip
"""Functions of PyTorch by which norms are written by hand, with the place of their argument `dim`."""

_plain = False


@contextmanager
def plain_norms() -> Iterator[None]:
    """In the block every norm computes over all channels, as its class does."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def count_normalised(module: nn.Module) -> int:
    """Counts the channels of a module that may be a norm over them; 0 where it is none.

    All of its parameters list them, and nothing else; it has no parts.
    """
    shapes = {tuple(size for size in one.shape if size > 1) for one in module._parameters.values() if one is not None}
    return shapes.pop()[0] if not module._modules and len(shapes) == 1 and all(len(one) == 1 for one in shapes) else 0


class _OverKept(TorchFunctionMode):
    """Computes norms over the channels at some positions alone; a layer norm's outputs at others are zero."""

    def __init__(self, positions: Tensor, count: int) -> None:
        super().__init__()
        self._positions, self._count = positions, count

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replaces norms and reductions over the channels, and runs everything else as it is."""
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name in ("layer_norm", "rms_norm"):
            return self._normalise(function, (len(self._positions),), -1, *args, **kwargs)
        if name == "group_norm":  # of a single group
            return self._normalise(function, 1, 1, *args, **kwargs)
        if name in REDUCTIONS:
            return self._reduce(function, REDUCTIONS[name], *args, **kwargs)
        return function(*args, **kwargs)

    def _normalise(self, function: Any, size: Any, axis: int, input: Tensor, _: Any, *args: Any, **rest: Any) -> Tensor:
        """Calls a norm over an axis with what is kept of its input and vectors; `size` is its second argument."""
        args, rest = tree_map_only(Tensor, lambda vector: vector.index_select(0, self._positions), (args, rest))
        found: Tensor = function(input.index_select(axis, self._positions), size, *args, **rest)
        return found.new_zeros(input.shape).index_copy(axis, self._positions, found)

    def _reduce(self, function: Any, place: int, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Reduces over an axis; where it lists the channels, over those that are kept."""
        axes = kwargs.get("dim", args[place - 1] if len(args) >= place else None)
        axes = [axes] if isinstance(axes, int) else axes or []
        if len(axes) == 1 and input.shape[axes[0]] == self._count:
            input = input.index_select(axes[0], self._positions)
        return function(input, *args, **kwargs)


class _Kept:
    """Mixed into a class of norms: `kept_channels` bool [channels] says over which it computes."""

    kept_channels: Tensor
    kept_positions: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes what the class does, over the channels that are left."""
        if _plain:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        with _OverKept(self.kept_positions, len(self.kept_channels)):
            return super().forward(*args, **kwargs)  # type: ignore[misc]


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def keep_in_norm(module: nn.Module, kept: Tensor) -> None:
    """Makes a norm compute over these channels alone, bool [channels]."""
    if not isinstance(module, _Kept):
        kind = type(module)
        if kind not in _classes:
            _classes[kind] = type(f"Kept{kind.__name__}", (_Kept, kind), {})
        module.__class__ = _classes[kind]
    kept = kept.to(next(module.parameters()).device)
    module.register_buffer("kept_channels", kept, persistent=False)
    module.register_buffer("kept_positions", kept.nonzero().flatten(), persistent=False)


def keep_all_in_norm(module: nn.Module) -> None:
    """Makes a norm compute over all of its channels again; other modules stay as they are."""
    if isinstance(module, _Kept):
        del module.kept_channels, module.kept_positions
        module.__class__ = next(kind for kind, kept in _classes.items() if kept is type(module))  # type: ignore[assignment]


def kept_in_norm(module: nn.Module) -> Tensor | None:
    """The channels that a norm computes over, bool [channels]; None where it is no such norm or does over all."""
    return module.kept_channels if isinstance(module, _Kept) else None


def kept_by_norm(model: nn.Module) -> dict[str, Tensor]:
    """The channels over which norms of a model compute, by name, of those that leave some out."""
    return {name: kept for name, module in model.named_modules() if (kept := kept_in_norm(module)) is not None}


def set_kept_by_norm(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Makes norms compute as those did of which `kept_by_norm` has told; all others over all channels."""
    for name, module in model.named_modules():
        if name in kept:
            keep_in_norm(module, kept[name])
        else:
            keep_all_in_norm(module)
