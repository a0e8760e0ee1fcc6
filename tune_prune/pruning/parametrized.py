"""Weights that are computed from other tensors: by weight norm, spectral norm, or `torch.nn.utils.prune`.

In each of these a zero of the underlying parameter is a zero of the weight at the same place, so that the parameter is
pruned in the weight's place, and the state dict stays what the user's own module reads.

Weight norm computes g * v / |v| (Salimans and Kingma 2016, eq. 2), one norm for each output as a rule. Where all of an
output's weights are removed, v = 0 would make it 0 / 0. There g is 0, and the first entry of v is 1.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from tune_prune.common.errors import UserError, format_names


@dataclass(frozen=True)
class Stored:
    """How a module stores a weight: the parameter that is pruned, which has the weight's shape.

    `compute` makes the weight from it without side effects, None where the parameter is the weight. `norm` is the g of
    a weight norm. `kept` is a mask of `torch.nn.utils.prune`, which removes weights too. `place` puts a computed weight
    where the module keeps it between its calls.
    """

    parameter: nn.Parameter
    compute: Callable[[], Tensor] | None = None
    norm: nn.Parameter | None = None
    kept: Tensor | None = None
    place: Callable[[Tensor], None] | None = None

    @torch.no_grad()
    def weight(self) -> Tensor:
        """The weight that the module computes with, detached."""
        return self.parameter.detach() if self.compute is None else self.compute().detach()

    def pairs(self, mask: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pairs of a parameter and its mask of 0 and 1: multiplied in each step of a training, they keep zeros zero."""
        if self.norm is None:
            return [(self.parameter, mask)]
        empty, first = self._find_empty(mask, self.norm)
        return [(self.parameter, mask.masked_fill(first, 1)), (self.norm, (~empty).to(self.norm.dtype))]

    def holds(self, mask: Tensor) -> bool:
        """Whether the weights that a mask removes are zero; those that `torch.nn.utils.prune` removes always are."""
        own = mask if self.kept is None else mask.masked_fill(self.kept == 0, 1)
        return not any(bool((value[kept == 0] != 0).any()) for value, kept in self.pairs(own))

    @torch.no_grad()
    def apply(self, mask: Tensor) -> None:
        """Sets the removed weights to exactly zero."""
        self.parameter.masked_fill_(mask == 0, 0.0)
        if self.norm is not None:
            empty, first = self._find_empty(mask, self.norm)
            self.parameter.masked_fill_(first, 1.0)
            self.norm.masked_fill_(empty, 0.0)
        if self.place is not None:
            self.place(self.weight())

    def _find_empty(self, mask: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        """The norms of which all weights are removed, bool of the norms' shape; and the first weight of each."""
        axes = [axis for axis in range(mask.dim()) if norm.dim() == 0 or norm.shape[axis] == 1]
        empty = (mask == 0).all(axes, keepdim=True) if axes else mask == 0
        first = torch.zeros_like(mask, dtype=torch.bool)
        first[tuple(slice(1) if axis in axes else slice(None) for axis in range(mask.dim()))] = empty
        return empty.view(norm.shape), first


def find_stored(module: nn.Module, name: str, label: str) -> Stored | None:
    """Finds how a module stores a weight; None where it has none, as a layer without an optional weight.

    `name` may have dots, and `label` names the module in messages. Raises a `UserError` where the weight is computed in
    a way that keeps no zeros, and where the module has nothing of this name.
    """
    owner, _, own_name = name.rpartition(".")
    module, name = module.get_submodule(owner), own_name
    if name in module._parameters:
        parameter = module._parameters[name]
        return None if parameter is None else Stored(parameter)
    stored = _find_parametrization(module, name) if parametrize.is_parametrized(module, name) else None
    stored = stored or _find_hook(module, name)
    if stored is not None:
        return stored
    if parametrize.is_parametrized(module, name) or isinstance(vars(module).get(name), Tensor):
        raise UserError(_describe_computed(label or "of the model itself", name))
    own = format_names([own for own, _ in module.named_parameters(recurse=False)])
    where = f"layer {label or 'of the model itself'} ({type(module).__name__})"
    raise UserError(f"{where} is registered with the weight {name!r}, which it does not have; it has: {own}")


def _find_parametrization(module: nn.Module, name: str) -> Stored | None:
    """How `torch.nn.utils.parametrize` stores a weight; None where a zero of what it stores may be none of the weight.

    Only a weight norm stores two tensors.
    """
    steps: Any = module.parametrizations[name]  # type: ignore[index]
    with_norm = isinstance(steps[0], parametrizations._WeightNorm)
    if not all(isinstance(step, parametrizations._SpectralNorm) for step in list(steps)[with_norm:]):
        return None

    def compute() -> Tensor:
        with _evaluating(steps):  # a spectral norm changes its estimate with every call in training mode
            computed: Tensor = steps()
            return computed

    if with_norm:
        return Stored(steps.original1, compute, norm=steps.original0)
    return Stored(steps.original, compute)


def _find_hook(module: nn.Module, name: str) -> Stored | None:
    """How the older functions of `torch.nn.utils` store a weight: a hook computes it before each call."""
    parameters, place = module._parameters, partial(setattr, module, name)
    for hook in module._forward_pre_hooks.values():
        direction, norm, original = (parameters.get(f"{name}_{suffix}") for suffix in ("v", "g", "orig"))
        if isinstance(hook, WeightNorm) and hook.name == name and direction is not None:
            return Stored(direction, partial(hook.compute_weight, module), norm, place=place)
        if isinstance(hook, SpectralNorm) and hook.name == name and original is not None:
            return Stored(original, partial(hook.compute_weight, module, False), place=place)
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name and original is not None:
            kept = module.get_buffer(f"{name}_mask")
            return Stored(original, partial(hook.apply_mask, module), kept=kept, place=place)
    return None


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module and its parts into evaluation mode, and back at the end."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _describe_computed(label: str, name: str) -> str:
    """Says why a layer with a weight that is computed in another way is refused, and what to do."""
    remedy = f"torch.nn.utils.parametrize.remove_parametrizations(layer, {name!r})"
    why = f"the {name} of layer {label} is computed from other tensors, in a way that may turn zeros into other numbers"
    return f"{why}; let the model's factory end with {remedy}, or make it a parameter"
