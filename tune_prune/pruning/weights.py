"""Finds the weights of a model that can be pruned, with the labels of their layers."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from tune_prune.common.errors import UserError
from tune_prune.pruning import layers
from tune_prune.pruning.layers import Weight
from tune_prune.pruning.parametrized import Stored, find_stored


@dataclass(frozen=True)
class LayerWeight:
    """The weights that have one label, one ratio and one mask: a parameter of a layer, or one gate's part of it."""

    label: str
    weight: Weight
    stored: Stored
    gate: int = 0

    def select(self, whole: Tensor) -> Tensor:
        """The part of a tensor of the parameter's shape that belongs to these weights; a view of it."""
        gates = len(self.weight.gates)
        return whole.chunk(gates, self.weight.outputs_axis or 0)[self.gate] if gates else whole

    def select_along(self, values: Tensor, axis: int) -> Tensor:
        """The part of a vector with an entry for each position along an axis of the parameter."""
        gates = len(self.weight.gates)
        return values.chunk(gates)[self.gate] if gates and axis == (self.weight.outputs_axis or 0) else values

    @property
    def tensor(self) -> Tensor:
        """The weights: the parameter itself; of one gate, a view of its values that takes no gradient."""
        parameter = self.stored.parameter
        return self.select(parameter.detach()) if self.weight.gates else parameter


def find_weights(model: nn.Module) -> dict[str, LayerWeight]:
    """Finds the weights that can be pruned, by label, in the model's order; see `masks.prunable`.

    Raises a `UserError` for a weight that is computed in an unknown way, and for a class that is registered with a
    parameter or an axis that it does not have.
    """
    found: dict[str, LayerWeight] = {}
    seen: set[int] = set()
    for label, module in labelled_modules(model):
        is_position = isinstance(model, nn.Sequential) and "/" not in label
        for weight, stored in stored_weights(module, label):
            if id(stored.parameter) in seen:
                continue
            seen.add(id(stored.parameter))
            for index, gate in enumerate(weight.gates or ("",)):
                part = ".".join(name for name in (weight.part, gate) if name)
                separator = "" if not part or not label else "/" if is_position else "."
                full = f"{label}{separator}{part}"
                found[full] = LayerWeight(full, weight, stored, index)
    return found


def labelled_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields every module with the label that a layer in its place has (`masks.prunable`)."""
    if not isinstance(model, nn.Sequential):
        yield from model.named_modules()
        return
    # not named_children, which leaves out a module's second use and so would shift the positions after it
    for position, part in enumerate(model, start=1):
        for name, module in part.named_modules():
            yield f"{position}/{name}" if name else str(position), module
    if type(model) in layers.registered:
        yield "", model


def stored_weights(module: nn.Module, label: str = "") -> Iterator[tuple[Weight, Stored]]:
    """Yields the weights of a module itself with how they are stored; `label` names it in messages."""
    for weight in layers.describe(module):
        stored = find_stored(module, weight.name, label)
        if stored is None:
            continue
        if isinstance(stored.parameter, UninitializedParameter):
            where = f"layer {label or 'of the model itself'}: {type(module).__name__}"
            raise UserError(f"{where} has no weights yet; let the model's factory call the model once")
        if stored.parameter.is_floating_point() or stored.parameter.is_complex():  # others are packed, as in 4 bits
            _check_axis(weight, stored.parameter, label)
            yield weight, stored


def _check_axis(weight: Weight, parameter: Tensor, label: str) -> None:
    axes, axis = parameter.dim(), weight.outputs_axis
    if axis is not None and not -axes <= axis < axes:
        raise UserError(
            f"layer {label or 'of the model itself'}: registered with outputs_axis={axis}, but {weight.name} has "
            f"{axes} axes; register it with one of them, or with None"
        )
