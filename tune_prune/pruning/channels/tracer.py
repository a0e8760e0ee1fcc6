"""Runs a model once with labels beside its tensors; see `labels`."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from tune_prune.common.errors import UserError
from tune_prune.pruning.channels import channelwise, products, rules
from tune_prune.pruning.channels.labels import Constraints, number_axis
from tune_prune.pruning.channels.norms import count_normalised, plain_norms
from tune_prune.pruning.channels.recurrent import plain_recurrence
from tune_prune.tasks.batches import Batch, Call, call_model, iterate_tensors, record_calls
from tune_prune.tasks.splits import AnySplit

RULES = (rules, products, channelwise)
"""The modules that register rules."""

SAMPLES = 2
"""Samples that a model is run on; which they are makes no difference."""


class Tracer(TorchDispatchMode):
    """Passes labels on, from operation to operation, and notes the constraints that follow."""

    def __init__(self, model: nn.Module, inputs: Batch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path: list[str] = []
        norms = {name: count for name, module in model.named_modules() if (count := count_normalised(module))}
        self.constraints = Constraints(self.path, norms)
        self.count = 0
        self.first_label: dict[tuple[str, int], int] = {}
        self._names = {id(tensor): name for name, tensor in named_tensors(model).items()}
        self._labels = WeakIdKeyDictionary()
        self._from_inputs = WeakIdKeyDictionary()
        for name, tensor in named_tensors(model).items():
            self._labels[tensor] = [
                labels for axis in range(tensor.dim()) if (labels := self._number(name, tensor, axis)) is not None
            ]
        for tensor in iterate_tensors(inputs):
            if tensor.is_floating_point():
                self._from_inputs[tensor] = True

    def _number(self, name: str, tensor: Tensor, axis: int) -> Tensor | None:
        if tensor.shape[axis] < 2:
            return None
        first, self.count = self.count, self.count + tensor.shape[axis]
        self.first_label[name, axis] = first
        return number_axis(first, tensor.shape, axis)

    def mark_zero(self, state: Tensor, matrix: Tensor) -> None:
        """Labels a state [samples, units] of zeros as the channels that a parameter [rows, units] reads.

        One that has labels keeps them, as a learned state does, and one that follows from the inputs has none.
        """
        first = self.first_label.get((self._names[id(matrix)], 1))
        if first is not None and not self.labels(state) and state not in self._from_inputs and not bool(state.any()):
            self._labels[state] = [number_axis(first, state.shape, 1)]

    def labels(self, value: Any) -> list[Tensor]:
        """The labels of an argument of an operation."""
        return self._labels.get(value, []) if isinstance(value, Tensor) else []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and passes the labels on."""
        output = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        tensors = rules.list_tensors((args, kwargs or {}))
        outputs = rules.list_tensors(output)
        depends = name == "embedding" or any(tensor in self._from_inputs for tensor in tensors)
        depends = depends and name not in rules.NEW
        if depends and name in ("_local_scalar_dense", "equal", "nonzero"):
            where = f"in {self.path[-1]}" if self.path and self.path[-1] else "in its forward method"
            why = "which channels hang together may differ from call to call"
            raise UserError(f"the model branches on data, {where}: {why}")
        if depends:
            for tensor in outputs:
                self._from_inputs[tensor] = True
        if not any(self.labels(tensor) for tensor in tensors):
            return output
        if name.rstrip("_") in rules.rules or name in rules.rules:
            rule = rules.rules[name if name in rules.rules else name.rstrip("_")]
        else:
            rule = rules.elementwise if torch.Tag.pointwise in operation.tags else rules.unknown
        plain = args if not kwargs else (*args, *kwargs.values())
        self.constraints.operation = name
        passed = rule(self.constraints, self.labels, operation, plain, output)
        for tensor, families in zip(outputs, passed, strict=True):
            self._labels[tensor] = families
        return output


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model by qualified name, each once, with those that no state dict holds."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def find_owner(model: nn.Module, name: str) -> nn.Module:
    """The module that holds a parameter or buffer of this qualified name."""
    return model.get_submodule(name.rpartition(".")[0])


@torch.no_grad()
def trace(model: nn.Module, inputs: Batch) -> Tracer:
    """Runs a model in evaluation mode on inputs, as `call_model` takes them; its outputs have to stay.

    Raises a `UserError` where it branches on data.
    """
    model.eval()
    tracer = Tracer(model, inputs)
    with (
        _plain_attention(),
        plain_norms(),
        plain_recurrence(model, tracer.mark_zero),
        _following(model, tracer.path),
        tracer,
    ):
        output = call_model(model, inputs)
    tracer.constraints.operation = ""
    for tensor in iterate_tensors(output):
        tracer.constraints.fix_all(tracer.labels(tensor))
    return tracer


@torch.no_grad()
def find_inputs(model: nn.Module, split: AnySplit, count: int = SAMPLES) -> Batch:
    """What the loss calls a model with for the first samples of a split, as `call_model` takes it.

    Raises a `UserError` where it does not call the model.
    """
    sample = split.head(count)
    with record_calls(model.eval()) as calls:
        sample.run(model, count, count)
    if not calls:
        raise UserError("the loss does not call the model itself, so that its channels cannot be traced")
    return as_batch(model, calls[0])


def as_batch(model: nn.Module, call: Call) -> Batch:
    """The arguments of a call as one batch of inputs: a tuple, or a mapping by name where some were given by name."""
    if not call.kwargs:
        return call.args
    return dict(inspect.signature(model.forward).bind(*call.args, **call.kwargs).arguments)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention in the block is computed by operations that have rules, not by fused ones."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _following(model: nn.Module, path: list[str]) -> Iterator[None]:
    """Keeps in `path` the names of the modules that are running, the innermost last."""

    def leave(*_: Any) -> None:  # what a hook returns would take the place of the module's output
        path.pop()

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        hooks.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
