"""How products pass labels on: they sum over the channels of their factors. See `rules`."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tune_prune.pruning.channels.labels import Constraints, find_varying
from tune_prune.pruning.channels.rules import Families, Labelled, add_rule, along, clean, combine


def add_vector(
    made: Constraints, labelled: Labelled, bias: Tensor | None, families: Families, shape: Sequence[int], axis: int
) -> Families:
    """Ties a bias, or another vector with an entry a channel, to the channels along an axis."""
    if bias is None:
        return families
    view = [1] * len(shape)
    view[axis] = bias.numel()
    vector = [one.reshape(view) for one in labelled(bias)]
    return combine(made, [(families, shape), (vector, view)], shape)


def multiply(
    made: Constraints, one: Families, other: Families, first: Sequence[int], second: Sequence[int]
) -> Families:
    """The labels of a matrix product of shapes [..., m, k] and [..., k, n], with as many axes each."""
    axes = len(first)
    inner, batch = {0: axes - 1, 1: axes - 2}, list(range(axes - 2))
    shape = [*(max(a, b) for a, b in zip(first[:-2], second[:-2], strict=True)), first[-2], second[-1]]
    summed: tuple[Families, Families] = ([], [])
    kept: tuple[Families, Families] = ([], [])
    for side, families in enumerate((one, other)):
        for labels in families:
            varying = set(find_varying(labels))
            if varying & set(batch):  # heads: whatever varies inside of one goes with it
                kept[side].append(made.restrict(labels, batch))
                made.mark_heads(kept[side][-1])
            elif inner[side] in varying:
                summed[side].append(made.restrict(labels, [inner[side]]))
            else:
                kept[side].append(labels)
    for side in (0, 1):
        for labels in summed[side]:
            if not summed[1 - side]:
                made.fix(labels)
            for partner in summed[1 - side]:
                made.tie(along(labels, inner[side]), along(partner, inner[1 - side]))
    narrowed = [
        (
            [labels.narrow(inner[side], 0, 1) for labels in kept[side]],
            [s if i != inner[side] else 1 for i, s in enumerate(own)],
        )
        for side, own in enumerate((first, second))
    ]
    return clean(combine(made, narrowed, shape))


@add_rule("mm", "bmm", "matmul")
def product(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """A product of matrices, or of batches of them."""
    return [multiply(made, labelled(args[0]), labelled(args[1]), args[0].shape, args[1].shape)]


@add_rule("addmm", "baddbmm")
def affine(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """A product of matrices, and a sum: a linear layer with its bias."""
    found = multiply(made, labelled(args[1]), labelled(args[2]), args[1].shape, args[2].shape)
    return [clean(combine(made, [(found, output.shape), (labelled(args[0]), args[0].shape)], output.shape))]


@add_rule("convolution")
def convolve(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """A convolution, of [n, channels, ...] with [outputs, inputs of a group, ...], or transposed.

    Groups must keep as many inputs and outputs each, so those at the same place of each group are tied; where each
    group has one input, it goes as a whole.
    """
    source, weight, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
    inputs_axis = 0 if transposed else 1
    rows, columns = (
        axis_labels(made, labelled(weight), 1 - inputs_axis),
        axis_labels(made, labelled(weight), inputs_axis),
    )
    channels = [along(made.restrict(labels, [1]), 1) for labels in labelled(source) if 1 in find_varying(labels)]
    made.fix_all(labels for labels in labelled(source) if 1 not in find_varying(labels))
    if transposed and groups > 1:
        made.fix_all([*rows, *columns, *channels])
        return [[]]
    is_depthwise = groups > 1 and weight.shape[1] == 1
    for of_input in channels:
        if is_depthwise:
            made.tie(of_input.view(groups, 1), rows[0].view(groups, -1)) if rows else made.fix(of_input)
        elif columns:
            made.tie(of_input.view(groups, -1), columns[0].view(1, -1))
        else:
            made.fix(of_input)
    if not channels:
        made.fix_all(columns)
        if is_depthwise:
            made.fix_all(rows)
    if groups > 1 and not is_depthwise:
        for row in rows:
            made.tie_along(row.view(groups, -1), 0)
    view = [1, -1, *[1] * (output.dim() - 2)]
    families = [row.view(view).expand(output.shape) for row in rows]
    return [clean(add_vector(made, labelled, bias, families, output.shape, 1))]


def axis_labels(made: Constraints, families: Families, axis: int) -> Families:
    """The labels of a weight's positions along an axis, as vectors; those that vary along others too have to stay."""
    found = []
    for labels in families:
        if find_varying(labels) == [axis]:
            found.append(along(labels, axis))
        elif axis in find_varying(labels):
            made.fix(labels)
    return found
