"""Recorded programs: run again, they are what the model runs."""

import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from toys import Conv, Recurrent, mlp, seeded

from tune_prune.export.latency.device_script import (
    compile_program,
    find_operation,
    list_outputs,
    make_constant,
    time_program,
)
from tune_prune.export.latency.programs import LARGE, VECTOR, Program, record_program
from tune_prune.tasks.batches import Batch, iterate_tensors

CPU = torch.device("cpu")


class Attention(nn.Module):
    """[n, 6, 8] -> [n, 6, 8], by the fused operation of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(inputs).chunk(3, -1))
        return self.out(functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Several(nn.Module):
    """Lists of tensors, types, masks, indices and numbers as arguments: [n, 4] and [n] words -> [n, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 4)

    def forward(self, inputs: Tensor, words: Tensor) -> Tensor:
        first, second = (inputs * 2.5).split([1, 3], dim=1)
        hidden = torch.where(inputs > 0, self.words(words), torch.full_like(inputs, -float("inf"), dtype=inputs.dtype))
        whole = torch.cat([hidden, first.to(torch.float64).float(), second.mean(1, keepdim=True)], dim=1)
        return whole.masked_fill(torch.zeros(len(inputs), 1, dtype=torch.bool), 0.0)


class Large(nn.Module):
    """Operations that take new memory, much and little, and some that take none."""

    def forward(self, inputs: Tensor) -> Tensor:
        return -inputs.relu().relu_().view(-1, 2)[8:]


def rebuilt(program: Program, model: nn.Module, inputs: Batch) -> Tensor:
    """What a program computes from the model's weights and inputs, which it finds by their shapes."""
    functions = [find_operation(name) for name, _, _ in program.operations]
    given = [*model.parameters(), *model.buffers(), *iterate_tensors(inputs)]
    constants = []
    for shape, dtype, strides in program.constants:
        fitting = [one for one in given if list(one.shape) == list(shape) and str(one.dtype) == f"torch.{dtype}"]
        constants.append(fitting[0] if fitting else make_constant(list(shape), dtype, list(strides), CPU))
    kept: list[Tensor] = []
    functions[-1] = keeping(functions[-1], kept)
    with torch.no_grad():
        compile_program(json.loads(json.dumps(program.to_dict())), timed=False)(functions, constants, CPU, [])
    return kept[0]


def keeping(function: Callable[..., Tensor], kept: list[Tensor]) -> Callable[..., Tensor]:
    def call(*args: object, **kwargs: object) -> Tensor:
        kept.append(function(*args, **kwargs))
        return kept[-1]

    return call


MODELS: dict[str, tuple[Callable[[], nn.Module], Batch]] = {
    "linear layers": (mlp, torch.randn(3, 1, 8, 8)),
    "convolutions": (Conv, torch.randn(3, 1, 8, 8)),
    "channels last": (lambda: Conv().to(memory_format=torch.channels_last), torch.randn(3, 1, 8, 8)),
    "attention": (Attention, torch.randn(3, 6, 8)),
    "several inputs": (Several, (torch.randn(3, 4), torch.tensor([1, 0, 4]))),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_program_computes_what_the_model_does(name: str) -> None:
    make, inputs = MODELS[name]
    model = make().eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:  # alike where shapes are, as they are told by these
            tensor.copy_(torch.rand(tensor.shape, generator=seeded(0)) + 0.5)
    program = record_program(model, inputs)
    expected = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    torch.testing.assert_close(rebuilt(program, model, inputs), expected)


@pytest.mark.parametrize("name", [*MODELS, "recurrent"])
def test_every_operation_of_a_program_is_timed(name: str) -> None:
    make, inputs = MODELS.get(name, (Recurrent, torch.randn(3, 1, 8, 8)))
    program = record_program(make(), inputs)
    total, seconds = time_program(json.loads(json.dumps(program.to_dict())), CPU)
    assert total > 0
    assert len(seconds) == len(program.operations) == len(program.costs)
    assert all(one > 0 for one in seconds)


def test_costs_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 20, 5, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(20 * 16, 7))
    costs = {cost.name: cost for cost in record_program(model, torch.randn(2, 3, 8, 8)).costs}
    convolution = costs["aten.convolution.default"]
    flops, weights = 2 * 2 * 16 * 20 * 3 * 25, 20 * 3 * 25
    assert (convolution.flops, convolution.weights) == (flops, weights)
    assert convolution.elements == 2 * 3 * 64 + weights + 2 * 20 * 16
    assert convolution.padded_flops == pytest.approx(flops * (2 * VECTOR / 20) * (VECTOR / 3))
    assert costs["aten.relu.default"] == ("aten.relu.default", 2 * 2 * 20 * 16, 0.0, 0.0, 0.0, 0.0)
    assert costs["aten.addmm.default"].flops == 2 * 2 * 20 * 16 * 7


def test_memory_that_comes_from_the_system() -> None:
    inputs = torch.zeros(LARGE // 4 + 4)  # a little more than LARGE bytes
    costs = {cost.name: cost.large for cost in record_program(Large(), inputs).costs}
    assert costs == {
        "aten.relu.default": inputs.numel(),
        "aten.relu_.default": 0,  # in the memory that is there
        "aten.view.default": 0,
        "aten.slice.Tensor": 0,
        "aten.neg.default": 0,  # a little less
    }


@given(
    outputs=st.lists(st.integers(0, 9), max_size=5), others=st.lists(st.one_of(st.none(), st.integers()), max_size=3)
)
@settings(max_examples=50, deadline=None)
def test_what_an_argument_is_made_of(outputs: list[int], others: list[object]) -> None:
    value = [*others, {"constant": 3}, [{"output": [number, None]} for number in outputs], {"type": "float32"}]
    assert list_outputs(value) == outputs
