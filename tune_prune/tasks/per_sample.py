"""Measures a metric of samples alone, and finds out whether that of a whole split is a mean over them.

A metric is a function of the user's, which does not say whether it is one. So it is measured of some samples one by
one, and of the same samples together.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch, count_samples
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.samples import InseparableError, take_samples

SAMPLES = 500
"""The most samples of a split that are measured one by one; of more they are drawn at random."""

GROUP = 16
"""Samples, about, that are measured together to compare with the mean over them."""

GROUPS = 4
"""Groups that are compared before all samples are measured."""

TOLERANCE, TOLERANCE_BF16 = 1e-3, 1e-2
"""The share by which a metric may differ from the mean over samples: batches of another size round otherwise."""


@dataclass(frozen=True)
class Mean:
    """A mean over samples: `inverse` of the arithmetic mean of `function` of each value, both ascending from 0 on."""

    name: str
    function: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[float], float]

    def fits(self, values: Sequence[float], whole: float, tolerance: float) -> bool:
        """Whether the metric of samples together is this mean of those of each alone, all finite numbers."""
        mean = self.of(values)
        return abs(mean - whole) <= tolerance * float(np.abs(values).mean())  # false for NaN

    def of(self, values: Sequence[float]) -> float:
        """This mean; NaN where it is not defined, as the geometric mean of numbers of both signs."""
        sign = 1 if self is ARITHMETIC else find_sign(values)
        found = float(self.function(sign * np.asarray(values, dtype=np.float64)).mean()) if sign else math.nan
        return sign * self.inverse(found) if math.isfinite(found) else math.nan


def _log(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logarithms: np.ndarray = np.log(values)
    return logarithms


ARITHMETIC = Mean("the mean", lambda values: values, float)
QUADRATIC = Mean("the root of the mean square", np.square, lambda mean: math.sqrt(max(0.0, mean)))
GEOMETRIC = Mean("the geometric mean", _log, lambda mean: math.exp(mean) if mean < 709 else math.inf)

MEANS = (ARITHMETIC, QUADRATIC, GEOMETRIC)
"""The means that are told apart: the second is that of a root mean square error, the third that of a perplexity."""


def find_sign(values: Sequence[float]) -> int:
    """1 where all values are positive, -1 where all are negative, else 0; zeros count as either."""
    low, high = min(values), max(values)
    return 1 if low >= 0 else -1 if high <= 0 else 0


@dataclass(frozen=True)
class SampleValues:
    """The metric of samples alone, and the kind of `mean` over them that the metric is.

    `count` is the number of samples of the whole split, of which `values` may have fewer.
    """

    values: tuple[float, ...]
    mean: Mean
    count: int

    @property
    def terms(self) -> list[float]:
        """The numbers whose arithmetic mean decides the metric."""
        sign = self._sign
        return [float(term) for term in self.mean.function(sign * np.asarray(self.values, dtype=np.float64))]

    def term(self, value: float) -> float:
        """The mean of terms of which a value of the metric follows."""
        return float(self.mean.function(np.asarray(self._sign * value, dtype=np.float64)))

    def value(self, term: float) -> float:
        """The value of the metric that follows from a mean of terms."""
        return self._sign * self.mean.inverse(term)

    @property
    def _sign(self) -> int:
        return 1 if self.mean is ARITHMETIC else find_sign(self.values)

    @property
    def unit(self) -> float | None:
        """What a sample counts where the metric is a share of samples, 1 or 100; else None."""
        top = max(self.values)
        return top if self.mean is ARITHMETIC and top in (1.0, 100.0) and {*self.values} <= {0.0, top} else None


@torch.no_grad()
def measure_samples(model: nn.Module, split: BatchSplit, value: float) -> SampleValues | str:
    """Measures the metric of samples one by one, in evaluation mode; or says why it is no mean over them.

    `value` is the metric of the whole split. The model and the split are on one device. A metric that is no mean over
    samples shows after a group of them; one that is takes up to `SAMPLES` batches of one.
    """
    name = split.objective.metric.name
    if not math.isfinite(value):
        return f"{name} is {value}"
    model.eval()
    with use_precision(split.objective.settings.precision, split.device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics that are not meant for one sample
        try:
            return _measure(model, split, value)
        except InseparableError as error:
            return str(error)


def _measure(model: nn.Module, split: BatchSplit, value: float) -> SampleValues | str:
    objective, name = split.objective, split.objective.metric.name
    tolerance = TOLERANCE_BF16 if objective.settings.precision == "bf16" else TOLERANCE
    chosen = _draw(split.count)
    means, values = list(MEANS), list[float]()
    group, begin, checked = list[Batch](), 0, 0
    for piece in _read_pieces(split, chosen):
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
    whole = value if len(values) == split.count else objective.measure(model, _read_pieces(split, chosen))
    means = [mean for mean in means if mean.fits(values, whole, tolerance)]
    if not means:
        return f"{name} is no mean over samples"
    if min(values) == max(values):
        return f"{name} is the same of every sample"
    return SampleValues(tuple(values), means[0], split.count)


def _measure_alone(model: nn.Module, split: BatchSplit, batch: Batch) -> float:
    try:
        return split.objective.measure(model, [batch])
    except UserError:  # as of a correlation, which one sample does not have
        return math.nan


def _draw(count: int) -> list[int]:
    """The numbers of the samples that are measured one by one, ascending; always the same."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return sorted(order[:SAMPLES].tolist())


def _read_pieces(split: BatchSplit, chosen: Sequence[int]) -> Iterator[Batch]:
    """Yields the chosen samples in order, in batches of at most `GROUP`."""
    first = 0
    for batch in split.batches():
        end = first + count_samples(batch)
        rows = [at - first for at in chosen[bisect_left(chosen, first) : bisect_left(chosen, end)]]
        for start in range(0, len(rows), GROUP):
            yield take_samples(batch, rows[start : start + GROUP])
        first = end
