"""Optimizers of the user's: any of `torch.optim`, or a subclass of its `Optimizer`, made by a function."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.common.source_lines import describe_code
from tune_prune.tasks.user_code import user_code


def _list_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _list_named(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


_GIVEN: Mapping[str, Callable[[nn.Module], Any]] = {"model": lambda model: model, "named_parameters": _list_named}
"""What a function gets whose first parameter has this name, in place of the parameters."""


class TorchOptimizer:
    """An optimizer of torch as the loops use one.

    Each of its groups of parameters keeps its own learning rate, which is scaled as the recipe scales `lr`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, lr: float, name: str) -> None:
        self._optimizer, self._lr, self._name = optimizer, lr, name
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self.parameters: Sequence[Tensor] = [one for group in optimizer.param_groups for one in group["params"]]

    @classmethod
    def make(cls, function: Callable[..., Any], model: nn.Module, lr: float, name: str) -> "TorchOptimizer":
        """Calls `function(parameters, lr)`; a `UserError` that names `name` where it fails or makes no optimizer.

        It gets the parameters that need a gradient; by the name of its first parameter also `named_parameters`, pairs
        of name and parameter, or the `model`.
        """
        with user_code("optimizer", name, function):
            unbound = function.func if isinstance(function, partial) else function
            first = next(iter(inspect.signature(unbound).parameters), "")
            made = function(_GIVEN.get(first, _list_parameters)(model), lr)
        if not isinstance(made, torch.optim.Optimizer):
            who = describe_code("optimizer", name, function)
            raise UserError(f"{who} returned {type(made).__name__}; it must return a torch.optim.Optimizer")
        return cls(made, lr, name)

    def step(self, lr: float | Tensor) -> None:
        """Updates all parameters that have a gradient, and clears the gradients; `lr` is what the recipe says."""
        scale = lr / self._lr if self._lr else 0.0
        for group, own in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = own * scale
        with user_code("optimizer", self._name):
            self._optimizer.step()
        for parameter in self.parameters:  # `zero_grad` does the same and more, which takes 3 % of a small step
            parameter.grad = None

    def save_state(self) -> tuple[dict[str, Tensor], object]:
        """Its `state_dict`: the tensors by name, and the rest with their names in their places."""
        tensors: dict[str, Tensor] = {}
        return tensors, self._take_tensors(self._optimizer.state_dict(), "optimizer", tensors)

    def load_state(self, tensors: Mapping[str, Tensor], rest: object) -> None:
        """Takes over what `save_state` has returned; a KeyError where a tensor is missing."""
        self._optimizer.load_state_dict(_put_tensors(rest, tensors))

    def _take_tensors(self, value: object, path: str, tensors: dict[str, Tensor]) -> object:
        """Moves the tensors inside a value to `tensors`, by their path; returns what JSON can hold."""
        if value is None or isinstance(value, str | int | float):
            return value
        if isinstance(value, Tensor):
            tensors[path] = value
            return {"tensor": path}
        if isinstance(value, Mapping):  # whose keys may be numbers
            return {"items": [[key, self._take_tensors(one, f"{path}/{key}", tensors)] for key, one in value.items()]}
        if isinstance(value, list | tuple):
            parts = [self._take_tensors(one, f"{path}/{at}", tensors) for at, one in enumerate(value)]
            return {"list" if isinstance(value, list) else "tuple": parts}
        what = f"its state holds a {type(value).__name__} under {path}"
        raise UserError(f"optimizer {self._name!r}: {what}, which cannot be saved; only numbers, text and tensors can")


def _put_tensors(value: object, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {key: _put_tensors(one, tensors) for key, one in content}
    parts = [_put_tensors(one, tensors) for one in content]
    return tuple(parts) if kind == "tuple" else parts
