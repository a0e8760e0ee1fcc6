"""What a metric is of samples alone, and the means over them that metrics are; or what it is of resamples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


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

    def to_dict(self) -> dict[str, object]:
        """What JSON has of it; `read_sample_values` makes an equal one of it."""
        return {"mean": self.mean.name, "count": self.count, "values": list(self.values)}

    @property
    def _sign(self) -> int:
        return 1 if self.mean is ARITHMETIC else find_sign(self.values)

    @property
    def unit(self) -> float | None:
        """What a sample counts where the metric is a share of samples, 1 or 100; else None."""
        top = max(self.values)
        return top if self.mean is ARITHMETIC and top in (1.0, 100.0) and {*self.values} <= {0.0, top} else None


def read_sample_values(raw: Mapping[str, object]) -> SampleValues:
    """What `to_dict` has written; raises `TypeError`, `ValueError` or `KeyError` where it is damaged."""
    means = {mean.name: mean for mean in MEANS}
    values, count = raw["values"], raw["count"]
    if not isinstance(values, list) or not isinstance(count, int) or not 0 < len(values) <= count:
        raise ValueError("values of samples must be a list, of at most as many as there are samples")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise ValueError("a value of a sample is no number")
    return SampleValues(tuple(map(float, values)), means[str(raw["mean"])], count)


FEWEST = 30
"""The fewest samples, or units of them, of which a bootstrap says how much a metric varies."""


@dataclass(frozen=True)
class Resamples:
    """A metric of all samples that were measured, of each resample, and of all but each unit.

    `measured` is the number of these samples, `count` that of the whole split.
    """

    whole: float
    values: tuple[float, ...]
    without: tuple[float, ...]
    measured: int
    count: int

    def to_dict(self) -> dict[str, object]:
        """What JSON has of it; `read_resamples` makes an equal one of it."""
        lists = {"values": list(self.values), "without": list(self.without)}
        return {"whole": self.whole, **lists, "measured": self.measured, "count": self.count}


def read_resamples(raw: Mapping[str, Any]) -> Resamples:
    """What `to_dict` has written; raises `TypeError`, `ValueError` or `KeyError` where it is damaged."""
    values, without = (tuple(map(float, raw[key])) for key in ("values", "without"))
    found = Resamples(float(raw["whole"]), values, without, int(raw["measured"]), int(raw["count"]))
    if not all(map(math.isfinite, (found.whole, *values, *without))) or not values or len(without) < FEWEST:
        raise ValueError("values of resamples must be finite numbers")
    return found
