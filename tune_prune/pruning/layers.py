"""The registry of layers: which parameters of a module are weights that can be pruned, and how they are laid out.

Each class of modules is described once. Masks, structured granularities, coverage and multiply-adds follow from it. A
subclass is described as its nearest registered base class. Users add classes of their own with `register`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tune_prune.common.errors import UserError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose weights are [inputs, outputs, ...], not [outputs, inputs, ...]."""

GATES = {nn.LSTM: ("input", "forget", "cell", "output"), nn.GRU: ("reset", "update", "new"), nn.RNN: ()}
"""The gates of recurrent layers, in the order in which their rows lie in a matrix; cells have those of their layer."""


@dataclass(frozen=True)
class Call:
    """A call of a layer: its inputs by the names in `forward`, its output, and one of its weights.

    `outputs` is the size of the weight's outputs axis, None where it has none.
    """

    inputs: Mapping[str, Any]
    output: Any
    weight: Tensor
    outputs: int | None


Uses = Callable[[Call], float]
"""Counts how often one call of a layer uses each weight, for all of its samples together: its multiply-adds."""


@dataclass(frozen=True)
class Weight:
    """A parameter of a layer that holds weights: its name, and the axis that counts outputs, None where none does.

    `part` names it in the labels of a layer with several parameters. `gates` names equal parts along the outputs axis,
    each of which has a label of its own. `last` is an output that is removed only after all others.
    """

    name: str
    outputs_axis: int | None
    uses: Uses
    part: str = ""
    gates: tuple[str, ...] = ()
    last: int | None = None


def use_by_output(call: Call) -> float:
    """One use for each position of the output: its elements divided by the outputs, or by samples where none count."""
    output = call.output
    while isinstance(output, Mapping | Sequence) and output:
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    if not isinstance(output, Tensor):
        raise UserError(f"a registered layer returns {type(output).__name__}; give register(uses=...) for its class")
    return float(len(output) if call.outputs is None else output.numel() / call.outputs)


def _use_by_input(call: Call) -> float:
    """One use for each position of the input, whose channels are the weight's first axis."""
    inputs: Tensor = call.inputs["input"]
    return inputs.numel() / call.weight.shape[0]


def _use_by_step(call: Call) -> float:
    """One use for each time step of each sequence."""
    inputs = call.inputs["input"]
    steps: Tensor = inputs.data if isinstance(inputs, nn.utils.rnn.PackedSequence) else inputs
    return steps.numel() / steps.shape[-1]


def _never(call: Call) -> float:
    """No use: rows are looked up, not multiplied."""
    return 0.0


def register(
    layer: type[nn.Module],
    weight: str | Sequence[str] = "weight",
    outputs_axis: int | None = 0,
    uses: Uses = use_by_output,
) -> None:
    """Makes the weights of a class of modules prunable, or replaces what is known of the class.

    `weight` is the name of the parameter that holds them, or several names; of several, each has a label of its own,
    "<layer>.<name>". Any module that holds the parameter will do, however its `forward` uses it. `outputs_axis` is the
    axis that counts outputs: 0 for [outputs, inputs, ...] as in `nn.Linear`, 1 for [inputs, outputs, ...]. Where it is
    None, no axis does, and only single weights can be removed. `uses` counts how often a call uses each weight, by
    default once for each position of the output. Raises a `UserError` where `layer` is no class of modules.

        tune_prune.register(Projection, weight="kernel", outputs_axis=1)
    """
    names = (weight,) if isinstance(weight, str) else tuple(weight)
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise UserError(f"register takes a class of modules, a subclass of torch.nn.Module, not {layer!r}")
    registered[layer] = tuple(Weight(name, outputs_axis, uses, name if len(names) > 1 else "") for name in names)


registered: dict[type[nn.Module], tuple[Weight, ...]] = {}
"""The classes that users have added, and their weights."""


def describe(module: nn.Module) -> Iterable[Weight]:
    """The weights of a module, as its class or the nearest of its base classes is registered."""
    for kind in type(module).__mro__:
        if kind in registered:
            return registered[kind]
        entry = _built_in.get(kind) or _built_in_elsewhere.get(f"{kind.__module__}.{kind.__qualname__}")
        if entry is not None:
            return entry(module)
    return ()


def _attention_weights(module: nn.MultiheadAttention) -> Iterator[Weight]:
    """The projections of an attention; its products of queries, keys and values use no weights.

    The output's projection is a module, but the attention uses its weight without calling it.
    """

    def tokens(call: Call, name: str) -> float:
        value: Tensor = call.inputs[name]
        return value.numel() / value.shape[-1]

    for part, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        yield Weight(f"{part}_weight", 0, lambda call, name=name: tokens(call, name), part)  # type: ignore[misc]
    # a third each of queries, keys and values
    yield Weight(
        "in_proj_weight", 0, lambda call: sum(tokens(call, name) for name in ("query", "key", "value")) / 3, "in_proj"
    )
    yield Weight("out_proj.weight", 0, lambda call: tokens(call, "query"), "out_proj")


def _recurrent_weights(module: nn.RNNBase) -> Iterator[Weight]:
    """The matrices of each layer and direction, each gate by itself.

    A matrix holds the gates' rows one below the other. They compute different things from weights of different size, so
    that one ratio for all would take most from the gate with the smallest weights: each gate has a label, a ratio and a
    mask of its own ("lstm.weight_hh_l0.forget"). A pattern such as "lstm.weight_hh_l0.*" stands for all of a matrix.
    """
    gates = next(names for kind, names in GATES.items() if isinstance(module, kind))
    for layer in range(module.num_layers):
        for direction in ("", "_reverse")[: 1 + module.bidirectional]:
            for matrix in ("ih", "hh"):
                name = f"weight_{matrix}_l{layer}{direction}"
                yield Weight(name, 0, _use_by_step, name, gates)
            if module.proj_size:
                name = f"weight_hr_l{layer}{direction}"
                yield Weight(name, 0, _use_by_step, name)


def _cell_weights(gates: tuple[str, ...]) -> Callable[[nn.Module], Sequence[Weight]]:
    """The two matrices of a recurrent cell, each gate by itself."""
    weights = tuple(Weight(name, 0, _use_by_step, name, gates) for name in ("weight_ih", "weight_hh"))
    return lambda module: weights


def _embedding_weights(module: nn.Embedding | nn.EmbeddingBag) -> Sequence[Weight]:
    """A row for each entry; that of padding is no entry, and stays as long as any other does."""
    return (Weight("weight", 0, _never, last=module.padding_idx),)


def _plain(uses: Uses, outputs_axis: int = 0) -> Callable[[nn.Module], Sequence[Weight]]:
    weights = (Weight("weight", outputs_axis, uses),)
    return lambda module: weights


_built_in: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Bilinear), _plain(use_by_output)),
    **dict.fromkeys(TRANSPOSED, _plain(_use_by_input, outputs_axis=1)),
    nn.MultiheadAttention: _attention_weights,
    **dict.fromkeys(GATES, _recurrent_weights),
    nn.LSTMCell: _cell_weights(GATES[nn.LSTM]),
    nn.GRUCell: _cell_weights(GATES[nn.GRU]),
    nn.RNNCell: _cell_weights(()),
    nn.Embedding: _embedding_weights,
    nn.EmbeddingBag: _embedding_weights,
}

_built_in_elsewhere = {"transformers.pytorch_utils.Conv1D": _plain(use_by_output, outputs_axis=1)}
"""Classes of libraries that are not imported here, by module and name; their weights are [inputs, outputs]."""
