"""How operations pass labels on that work on the positions of each channel, or over all of them. See `rules`."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tune_prune.pruning.channels.labels import NONE, Constraints, find_varying
from tune_prune.pruning.channels.products import add_vector, axis_labels
from tune_prune.pruning.channels.rules import Families, Labelled, add_rule, along, clean, combine, list_tensors

REDUCTIONS = (
    "mean", "sum", "amax", "amin", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "_softmax",
    "_log_softmax", "_safe_softmax", "cumsum", "argmax", "prod",
)  # fmt: skip
OF_NORMS = ("mean", "sum", "var", "std", "var_mean", "std_mean", "linalg_vector_norm")
"""Reductions by which norms are written by hand."""
SPATIAL = (
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
    "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
)  # fmt: skip


@add_rule("constant_pad_nd")
def pad(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """Pads labels: along a channel axis with none, along others with themselves."""
    widths = args[1]
    padded = []
    for labels in labelled(args[0]):
        shape = list(output.shape)
        axes = [labels.dim() - 1 - i for i in range(len(widths) // 2) if any(widths[2 * i : 2 * i + 2])]
        if set(axes) & set(find_varying(labels)):
            padded.append(operation(labels, widths, NONE))
        else:
            for axis in axes:
                labels = labels.narrow(axis, 0, 1)
            padded.append(labels.expand(shape))
    return [clean(padded)]


@add_rule(*REDUCTIONS)
def reduce(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """A reduction over an axis of channels needs all of them, but for a norm's; what lies along other axes stays.

    Where channels lie along other axes too, as heads do, those beside each other along this one hang together.
    """
    source, outputs, name = args[0], list_tensors(output), operation.overloadpacket.__name__
    at = 2 if name == "linalg_vector_norm" else 1
    given = args[at] if len(args) > at and isinstance(args[at], int | list | tuple) else []
    numbers = [given] if isinstance(given, int) else [*given] or [*range(source.dim())]
    axes = {axis % max(source.dim(), 1) for axis in numbers}
    kept = []
    for labels in labelled(source):
        varying = set(find_varying(labels))
        if axes & varying and varying <= axes:
            made.normalise(labels, min(axes)) if len(axes) == 1 and name in OF_NORMS else made.fix(labels)
            continue
        labels = made.restrict(labels, varying - axes)
        if outputs[0].dim() < source.dim():
            for axis in sorted(axes, reverse=True):
                labels = labels.select(axis, 0)
        else:
            for axis in axes:
                labels = labels.narrow(axis, 0, 1)
        kept.append(labels.expand(outputs[0].shape))
    return [kept] * len(outputs)


@add_rule(*SPATIAL)
def pool(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """Works on the positions of each channel by itself; the channels lie along the second axis."""
    outputs = list_tensors(output)
    kept = []
    for labels in labelled(args[0]):
        labels = made.restrict(labels, [1])
        for axis in range(2, labels.dim()):
            labels = labels.narrow(axis, 0, 1)
        kept.append(labels.expand(outputs[0].shape))
    return [clean(kept)] * len(outputs)


@add_rule("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm")
def batch_norm(
    made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any
) -> list[Families]:
    """Works on each channel by itself, with four vectors that have an entry for each."""
    families = [made.restrict(labels, [1]) for labels in labelled(args[0])]
    for vector in args[1:5]:
        families = add_vector(made, labelled, vector, families, args[0].shape, 1)
    return [clean(families), [], []]


@add_rule("native_layer_norm", "_fused_rms_norm")
def layer_norm(
    made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any
) -> list[Families]:
    """Normalises over the channels along the last axes, with a factor and a term for each."""
    source, normalised = args[0], range(args[0].dim() - len(args[1]), args[0].dim())
    families = labelled(source)
    for labels in families:
        if set(find_varying(labels)) & set(normalised):
            made.normalise(labels, normalised[0]) if len(normalised) == 1 else made.fix(labels)
    vectors = [(labelled(vector), vector.shape) for vector in args[2:4] if isinstance(vector, Tensor)]
    found = clean(combine(made, [(families, source.shape), *vectors], source.shape))
    return [found, *([] for _ in list_tensors(output)[1:])]


@add_rule("native_group_norm")
def group_norm(
    made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any
) -> list[Families]:
    """Normalises over each group of channels along the second axis, with a factor and a term for each channel.

    Those of a group hang together, so that whole groups leave; of a single group, any.
    """
    source, weight, bias, groups = args[0], args[1], args[2], args[6]
    families = []
    for labels in (made.restrict(labels, [1]) for labels in labelled(source)):
        if groups == 1 and 1 in find_varying(labels):
            made.normalise(labels, 1)
        elif 1 in find_varying(labels):
            made.tie_along(along(labels, 1).view(groups, -1), 1)
        families.append(labels)
    for vector in (weight, bias):
        families = add_vector(made, labelled, vector, families, source.shape, 1)
    return [clean(families), [], []]


@add_rule("embedding")
def look_up(made: Constraints, labelled: Labelled, operation: Any, args: Sequence[Any], output: Any) -> list[Families]:
    """Looks up rows: these have to stay, what they hold are channels along the last axis."""
    weight = args[0]
    made.fix_all(axis_labels(made, labelled(weight), 0))
    columns = axis_labels(made, labelled(weight), 1)
    return [clean([column.expand(output.shape) for column in columns])]
