"""Measures a metric of samples alone, and finds out whether that of a whole split is a mean over them.

A metric is a function of the user's, which does not say whether it is one. So it is measured of some samples one by
one, and of the same samples together.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch, count_samples
from tune_prune.tasks.objective import Objective
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.sample_values import MEANS, SampleValues
from tune_prune.tasks.samples import InseparableError, take_samples

SAMPLES = 500
"""The most samples of a split that are measured one by one for an interval; of more they are drawn at random."""

CERTIFIED_SAMPLES = 5000
"""The same for a certificate, which rare samples with large values may refute."""

GROUP = 16
"""Samples, about, that are measured together to compare with the mean over them."""

GROUPS = 4
"""Groups that are compared before all samples are measured."""

TOLERANCE, TOLERANCE_BF16 = 1e-3, 1e-2
"""The share by which a metric may differ from the mean over samples: batches of another size round otherwise."""


@torch.no_grad()
def measure_samples(model: nn.Module, split: BatchSplit, value: float, most: int = SAMPLES) -> SampleValues | str:
    """Measures the metric of samples one by one, in evaluation mode; or says why it is no mean over them.

    `value` is the metric of the whole split. The model and the split are on one device. A metric that is no mean over
    samples shows after a group of them; one that is takes up to `most` batches of one.
    """
    name = split.objective.metric.name
    if not math.isfinite(value):
        return f"{name} is {value}"
    model.eval()
    with use_precision(split.objective.settings.precision, split.device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics that are not meant for one sample
        try:
            return _measure(model, split, value, most)
        except InseparableError as error:
            return str(error)


def _measure(model: nn.Module, split: BatchSplit, value: float, most: int) -> SampleValues | str:
    objective, name = split.objective, split.objective.metric.name
    tolerance = tolerance_of(objective)
    chosen = draw_samples(split.count, most)
    means, values = list(MEANS), list[float]()
    group, begin, checked = list[Batch](), 0, 0
    for piece in read_pieces(split, chosen):
        for row in range(count_samples(piece)):
            values.append(_measure_alone(model, split, take_samples(piece, [row])))
            if not math.isfinite(values[-1]):
                return f"{name} of one sample alone is no number"
        if checked == GROUPS:
            continue
        group.append(piece)
        if len(values) - begin >= GROUP:
            whole = objective.measure(model, group)
            means = [mean for mean in means if mean.fits(values[begin:], whole, tolerance)]
            group, begin, checked = [], len(values), checked + 1
        if not means:
            return f"{name} is no mean over samples"
    whole = value if len(values) == split.count else objective.measure(model, read_pieces(split, chosen))
    means = [mean for mean in means if mean.fits(values, whole, tolerance)]
    if not means:
        return f"{name} is no mean over samples"
    if min(values) == max(values):
        return f"{name} is the same of every sample"
    return SampleValues(tuple(values), means[0], split.count)


def tolerance_of(objective: Objective) -> float:
    """The share by which a metric may differ where the same samples come in other batches."""
    return TOLERANCE_BF16 if objective.settings.precision == "bf16" else TOLERANCE


def _measure_alone(model: nn.Module, split: BatchSplit, batch: Batch) -> float:
    try:
        return split.objective.measure(model, [batch])
    except UserError:  # as of a correlation, which one sample does not have
        return math.nan


def draw_samples(count: int, most: int) -> list[int]:
    """The numbers of the samples that are measured one by one, ascending; always the same."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return sorted(order[:most].tolist())


def read_pieces(split: BatchSplit, chosen: Sequence[int]) -> Iterator[Batch]:
    """Yields the chosen samples in order, in batches of at most `GROUP`."""
    first = 0
    for batch in split.batches():
        end = first + count_samples(batch)
        rows = [at - first for at in chosen[bisect_left(chosen, first) : bisect_left(chosen, end)]]
        for start in range(0, len(rows), GROUP):
            yield take_samples(batch, rows[start : start + GROUP])
        first = end
