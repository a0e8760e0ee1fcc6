"""Records the operations of PyTorch that a model runs, with all that decides how long they take."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from tune_prune.common.errors import UserError
from tune_prune.tasks.batches import Batch, call_model, iterate_tensors, map_tensors

VECTOR = 16
"""Numbers that a processor's vector registers hold: a width that is no multiple takes as long as the next one."""


LARGE = 2**25
"""Bytes from which on glibc gets the memory of a tensor from the system anew every time (M_MMAP_THRESHOLD_MAX): writing
to it takes several times as long."""


class Cost(NamedTuple):
    """What the time of an operation depends on: the numbers that it reads and writes, those of LARGE tensors that it
    writes, its floating-point operations, how many these were if the widths of its weight were multiples of VECTOR, and
    the numbers of this weight."""

    name: str
    elements: float
    large: float = 0.0
    flops: float = 0.0
    padded_flops: float = 0.0
    weights: float = 0.0


@dataclass(frozen=True)
class Program:
    """The operations of one call of a model; `constants` are its weights and inputs: shape, type and strides.

    An operation is its name, its arguments and its keyword arguments, as JSON has them (`device_script.as_source`).
    """

    constants: Sequence[tuple[Sequence[int], str, Sequence[int]]]
    operations: Sequence[tuple[str, list[Any], dict[str, Any]]]
    costs: Sequence[Cost]

    def to_dict(self) -> dict[str, Any]:
        """The program as `device_script` takes it."""
        return {"constants": self.constants, "operations": self.operations}


@torch.no_grad()
def record_program(model: nn.Module, inputs: Batch) -> Program:
    """Runs a model in evaluation mode on inputs, as `call_model` takes them, and records what it runs.

    It is run on the CPU, so that programs of all devices are alike. Raises a `UserError` for an argument of an
    operation that no file can hold.
    """
    recorder = _Recorder()
    model.eval()
    if any(tensor.device.type != "cpu" for tensor in iterate_tensors(inputs)):
        model, inputs = copy.deepcopy(model).cpu(), map_tensors(inputs, Tensor.cpu)
    with recorder:
        call_model(model, inputs)
    return Program(recorder.constants, recorder.operations, recorder.costs)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.constants: list[tuple[Sequence[int], str, Sequence[int]]] = []
        self.operations: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.costs: list[Cost] = []
        self._sources: dict[int, dict[str, Any]] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets the id of one that is known

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs and records an operation."""
        kwargs = kwargs or {}
        encoded = self._encode(list(args)), {key: self._encode(value) for key, value in kwargs.items()}
        output = operation(*args, **kwargs)
        has_several = isinstance(output, list | tuple)
        recorded: tuple[str, list[Any], dict[str, Any]] = (str(operation), *encoded)
        if operation.overloadpacket is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            recorded, has_several = _as_portable_attention(*encoded), False
        for number, tensor in enumerate(output if isinstance(output, list | tuple) else [output]):
            if isinstance(tensor, Tensor):
                self._remember(tensor, {"output": [len(self.operations), number if has_several else None]})
        self.operations.append(recorded)
        self.costs.append(_find_cost(operation, args, kwargs, output))
        return output

    def _remember(self, tensor: Tensor, source: dict[str, Any]) -> None:
        self._sources[id(tensor)] = source
        self._alive.append(tensor)

    def _encode(self, value: Any) -> Any:
        match value:
            case Tensor():
                if id(value) not in self._sources:
                    strides = [] if value.is_contiguous() else list(value.stride())
                    self.constants.append((list(value.shape), str(value.dtype).removeprefix("torch."), strides))
                    self._remember(value, {"constant": len(self.constants) - 1})
                return self._sources[id(value)]
            case list() | tuple():
                return [self._encode(part) for part in value]
            case torch.device():
                return {"device": None}
            case torch.dtype() | torch.layout() | torch.memory_format():
                return {"type": str(value).removeprefix("torch.")}
            case None | bool() | int() | float() | str():
                return value
        raise UserError(f"latency cannot be predicted: an operation of the model has a {type(value).__name__}")


def _as_portable_attention(args: list[Any], kwargs: dict[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
    """The CPU's fused attention by the name that all devices know; it has one output there."""
    names = ("query", "key", "value", "dropout_p", "is_causal")
    return "aten.scaled_dot_product_attention.default", [], dict(zip(names, args, strict=False)) | kwargs


def _find_cost(operation: Any, args: Any, kwargs: Any, output: Any) -> Cost:
    """What an operation's time depends on; floating-point operations as PyTorch counts them."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    written = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    elements = float(sum(tensor.numel() for tensor in [*tensors, *written]))
    given = {tensor.untyped_storage().data_ptr() for tensor in tensors}  # what is written in place has its memory
    made = [one.numel() for one in written if one.nbytes >= LARGE and one.untyped_storage().data_ptr() not in given]
    large = float(sum(made))
    count = flop_registry.get(operation.overloadpacket)
    if count is None:
        return Cost(str(operation), elements, large)
    flops = float(count(*args, **kwargs, out_val=output))
    weight = tensors[1] if operation.overloadpacket is torch.ops.aten.convolution else tensors[-1]
    padded = flops * _padding(weight.shape[:2])
    return Cost(str(operation), elements, large, flops, padded, float(weight.numel()))


def _padding(widths: Iterable[int]) -> float:
    return math.prod(math.ceil(width / VECTOR) * VECTOR / width for width in widths if width > 1)
