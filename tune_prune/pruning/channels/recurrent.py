"""Runs recurrent layers by operations that have rules, and follows the channels of their state.

A unit of the state that is removed stays zero: without weights and biases a cell keeps a state of zero at zero. All
layers and directions of a module have as many units, so that those at the same place leave together.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, ...]
"""The state of a layer in one direction, each [samples, units]: what it returns, and an LSTM's cells."""

MarkZero = Callable[[Tensor, nn.Parameter], None]
"""Says of a state [samples, units], if it is zero, that its units are channels that a matrix [rows, units] reads."""


def _step_lstm(inputs: Tensor, state: Tensor, before: State) -> State:
    entered, forgot, cell, shown = (inputs + state).chunk(4, -1)
    cells = forgot.sigmoid() * before[1] + entered.sigmoid() * cell.tanh()
    return shown.sigmoid() * cells.tanh(), cells


def _step_gru(inputs: Tensor, state: Tensor, before: State) -> State:
    (reset, update, new), (reset_too, update_too, old) = inputs.chunk(3, -1), state.chunk(3, -1)
    share = (update + update_too).sigmoid()
    return ((1 - share) * (new + (reset + reset_too).sigmoid() * old).tanh() + share * before[0],)


def _step_rnn(inputs: Tensor, state: Tensor, before: State) -> State:
    return ((inputs + state).tanh(),)


STEPS: dict[type[nn.RNNBase], Callable[[Tensor, Tensor, State], State]] = {
    nn.LSTM: _step_lstm, nn.GRU: _step_gru, nn.RNN: _step_rnn,
}  # fmt: skip
"""A step, from the products of inputs and of the state, [samples, gates * units], and the state before."""


@contextmanager
def plain_recurrence(model: nn.Module, mark: MarkZero) -> Iterator[None]:
    """Recurrent layers compute two of their steps by other operations, and return the last as that of every step.

    So their outputs hold other numbers, of the same shape, than they do otherwise. Those with projections or packed
    sequences run as they are.
    """
    recurrent = [one for one in model.modules() if isinstance(one, nn.RNNBase)]
    modules = [one for one in recurrent if type(one) in STEPS and not one.proj_size]
    for module in modules:
        module.forward = _replace_forward(module, mark)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _replace_forward(module: nn.RNNBase, mark: MarkZero) -> Callable[..., Any]:
    def forward(inputs: Any, hx: Any = None) -> Any:
        if not isinstance(inputs, Tensor):
            return type(module).forward(module, inputs, hx)
        is_batched = inputs.dim() == 3
        steps = inputs if is_batched else inputs.unsqueeze(1)
        steps = steps.transpose(0, 1) if module.batch_first and is_batched else steps
        given = None if hx is None else [one if is_batched else one.unsqueeze(1) for one in _as_state(hx)]
        outputs, states = _run(module, steps, given, mark)
        outputs = outputs.expand(len(steps), *outputs.shape)
        outputs = outputs.transpose(0, 1) if module.batch_first and is_batched else outputs
        last = [one if is_batched else one.squeeze(1) for one in states]
        return outputs if is_batched else outputs.squeeze(1), tuple(last) if isinstance(module, nn.LSTM) else last[0]

    return forward


def _as_state(hx: Any) -> State:
    return (hx,) if isinstance(hx, Tensor) else tuple(hx)


def _run(module: nn.RNNBase, steps: Tensor, given: list[Tensor] | None, mark: MarkZero) -> tuple[Tensor, list[Tensor]]:
    """The outputs of a step, [samples, directions * units], and the states of all layers and directions together.

    `steps` are [steps, samples, inputs]; the state before is `given`, or zero.
    """
    inputs, found = [steps[0], steps[-1]], list[State]()
    for layer in range(module.num_layers):
        of_layer = []
        for direction in ("", "_reverse")[: 1 + module.bidirectional]:
            place = f"l{layer}{direction}"
            of_inputs, of_state = getattr(module, f"weight_ih_{place}"), getattr(module, f"weight_hh_{place}")
            biases = [getattr(module, f"bias_{name}_{place}") if module.bias else None for name in ("ih", "hh")]
            state = _begin(module, inputs[0]) if given is None else tuple(one[len(found)] for one in given)
            for one in state:
                mark(one, of_state)
            for one in inputs:
                products = (
                    functional.linear(one, of_inputs, biases[0]),
                    functional.linear(state[0], of_state, biases[1]),
                )
                state = STEPS[type(module)](*products, state)
            found.append(state)
            of_layer.append(state[0])
        inputs = [torch.cat(of_layer, -1)] * 2
    return inputs[0], [torch.stack(of_kind) for of_kind in zip(*found, strict=True)]


def _begin(module: nn.RNNBase, inputs: Tensor) -> State:
    """States of zero."""
    return tuple(inputs.new_zeros(len(inputs), module.hidden_size) for _ in range(1 + isinstance(module, nn.LSTM)))
