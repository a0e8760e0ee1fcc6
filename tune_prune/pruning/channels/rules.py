"""How operations pass labels on, by the name of an operation in ATen, PyTorch's library of operations.

Operations that move elements move their labels. Operations on each element tie the channels of their operands.
Products sum over channels of both factors, which are tied, and leave those along their other axes. After an operation
without a rule the channels of its operands have to stay.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from tune_prune.common.registry import Registry
from tune_prune.pruning.channels.labels import NONE, Constraints, find_varying, simplify

Families = list[Tensor]
"""The labels of a tensor: one tensor of its shape for each of its axes that count channels."""

Labelled = Callable[[Any], Families]
"""Returns the labels of an argument; none where it is no tensor."""

Rule = Callable[[Constraints, Labelled, Any, Sequence[Any], Any], list[Families]]
"""Takes the constraints, the labels, the operation, its arguments and its output; returns the labels of each output."""

rules: Registry[Rule] = Registry("operation")

MOVES = (
    "permute", "transpose", "t", "slice", "select", "expand", "unsqueeze", "squeeze", "flip", "roll", "repeat",
    "unfold", "diagonal", "unbind", "index_select", "index", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
)  # fmt: skip
SAME = (
    "clone", "contiguous", "detach", "alias", "_to_copy", "lift_fresh", "hardswish", "dropout",
    # torch tags most operations on each element as pointwise, but not these, or not where they work in place (2.11)
    "leaky_relu", "hardtanh", "hardsigmoid", "elu", "celu", "selu", "mish", "threshold", "rrelu_with_noise",
)  # fmt: skip
RESHAPES = ("view", "_unsafe_view", "reshape", "_reshape_alias")
SPLITS = (
    "split", "unsafe_split", "chunk", "split_with_sizes", "unsafe_split_with_sizes", "unsafe_chunk",
)  # fmt: skip
NEW = (
    "new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like", "full_like",
)  # fmt: skip


def add_rule(*names: str) -> Callable[[Rule], Rule]:
    """Makes a decorator that adds a rule for these operations, and for their forms that work in place."""

    def add(rule: Rule) -> Rule:
        for name in names:
            rules.add(name, rule)
        return rule

    return add


def clean(labels: list[Tensor]) -> Families:
    """Labels in the least memory, without those that no element has."""
    return [kept for one in labels if (kept := simplify(one)) is not None]


def list_tensors(values: Any) -> list[Tensor]:
    """The tensors among the arguments of an operation, or in what it returns."""
    return [value for value in tree_flatten(values)[0] if isinstance(value, Tensor)]


@add_rule(*MOVES)
def move(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """Does to the labels what is done to the tensor."""
    rest = tree_map(lambda value: value.cpu() if isinstance(value, Tensor) else value, list(args[1:]))
    moved = [list_tensors(operation(labels, *rest)) for labels in labelled(args[0])]
    return [clean([of_one[i] for of_one in moved]) for i in range(len(list_tensors(output)))]


@add_rule(*SAME)
def keep(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """The labels stay."""
    return [labelled(args[0])]


@add_rule(*NEW)
def make(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """A new tensor of a tensor's kind holds nothing of it."""
    return [[]]


@add_rule("as_strided")
def restride(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """Another order in memory of the same elements keeps the labels; what it is otherwise is not known."""
    if output.shape == args[0].shape:
        return [labelled(args[0])]
    return unknown(made, labelled, operation, args, output)


@add_rule(*RESHAPES)
def reshape(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """Gives the labels the shape of the output."""
    return [clean([labels.reshape(output.shape) for labels in labelled(args[0])])]


def along(labels: Tensor, axis: int) -> Tensor:
    """Labels that vary along one axis, as a vector."""
    return labels.movedim(axis, -1)[(0,) * (labels.dim() - 1)]


@add_rule(*SPLITS)
def split(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """Moves labels; parts of a channel axis must keep as many channels each, so those at the same place are tied.

    Where the code gives each part a size of its own, the sizes are numbers that may change with the channels.
    """
    axis = (args[2] if len(args) > 2 else 0) % args[0].dim()
    sizes = [part.shape[axis] for part in output]
    are_given = operation.overloadpacket.__name__.endswith("with_sizes")
    for labels in labelled(args[0]):
        varying = find_varying(labels)
        parts = labels.split(sizes, axis)
        if axis in varying and are_given and varying == [axis]:
            made.note_parts([along(part, axis) for part in parts])
        if axis in varying and len(set(sizes)) == 1:
            for part in parts[1:]:
                made.tie(parts[0], part)
        elif axis in varying and not are_given:
            made.fix(labels)
    return move(made, labelled, operation, args, output)


@add_rule("cat", "stack")
def join(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """Joins labels along the axis of a concatenation, and ties channels along other axes."""
    is_new = operation.overloadpacket.__name__ == "stack"
    axis = (args[1] if len(args) > 1 else 0) % output.dim()
    parts, others, along = [], [], False
    for tensor in args[0]:
        if tensor.dim() == 1 and tensor.numel() == 0:  # which cat ignores, whatever the others' shape is
            continue
        families = [one.unsqueeze(axis) if is_new else one for one in labelled(tensor)]
        of_axis = [labels for labels in families if axis in find_varying(labels)]
        rest = [labels for labels in families if axis not in find_varying(labels)]
        made.fix_all(of_axis[1:])
        shape = tensor.unsqueeze(axis).shape if is_new else tensor.shape
        along = along or bool(of_axis)
        parts.append(of_axis[0] if of_axis else torch.full((), NONE).expand(shape))
        others.append((rest, [s if i != axis else 1 for i, s in enumerate(shape)]))
    joined = [torch.cat(parts, axis)] if along else []
    narrowed = [([one.narrow(axis, 0, 1) for one in rest], shape) for rest, shape in others]
    tied = combine(made, narrowed, [s if i != axis else 1 for i, s in enumerate(output.shape)])
    return [clean([*joined, *(one.expand(output.shape) for one in tied)])]


def combine(made: Constraints, operands: Sequence[tuple[Families, Sequence[int]]], shape: Sequence[int]) -> Families:
    """Ties the labels of operands (labels, shape) that are broadcast to a shape and combined element by element.

    Labels that have to stay are not passed on: they are as good as none.
    """
    padded = []
    for families, own in operands:
        missing = [1] * (len(shape) - len(own))
        padded.append(([one.reshape(*missing, *own) for one in families], [*missing, *own]))
    free: Families = []
    for at, (families, own) in enumerate(padded):
        for labels in families:
            can_leave = True
            for other, (rest, extent) in enumerate(padded):
                if other != at and (met := _find_met(labels, extent)):
                    can_leave &= _tie_operand(made, labels, own, rest, met)
            free.extend([labels] * can_leave)
    found: Families = []
    for labels in sorted(free, key=lambda one: len(find_varying(one)), reverse=True):
        if not any(set(find_varying(labels)) & set(find_varying(one)) for one in found):
            found.append(labels.expand(*shape))
    return found


def _find_met(labels: Tensor, extent: Sequence[int]) -> set[int]:
    """The axes along which labels vary and another operand, of this shape, is not broadcast."""
    return {axis for axis in find_varying(labels) if extent[axis] > 1}


def _tie_operand(made: Constraints, labels: Tensor, shape: Sequence[int], others: Families, met: set[int]) -> bool:
    """Ties labels of an operand of a shape to those of another operand, which is not broadcast along the axes `met`.

    Returns whether they can leave by what is known here.
    """
    is_wider = len(met) < len(find_varying(labels))
    partners = [one for one in others if met & set(find_varying(one))]
    for partner in partners:
        met_by_partner = _find_met(partner, shape)
        is_narrower = len(met_by_partner) < len(find_varying(partner)) and met_by_partner >= set(find_varying(labels))
        if is_wider and met >= set(find_varying(partner)):
            made.tie_if_alike(labels, partner, met)
        elif not is_narrower:  # else the wider one of the two is tied to the other
            made.tie(labels, partner)
    if not partners:
        made.tie_if_alike(labels, torch.full((), NONE), met) if is_wider else made.fix(labels)
    return bool(partners) or is_wider


def elementwise(
    made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any
) -> list[Families]:
    """Ties the channels of the operands of an operation on each element."""
    operands, outputs = [(labelled(one), one.shape) for one in list_tensors(args)], list_tensors(output)
    return [combine(made, operands, outputs[0].shape)] * len(outputs)


def unknown(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """What has no rule needs all channels as they are."""
    for value in list_tensors(args):
        made.fix_all(labelled(value))
    return [[] for _ in list_tensors(output)]
