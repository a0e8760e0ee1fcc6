"""Confidence intervals: of an error on some images (Wilson 1927), of a mean over samples (Efron and Tibshirani 1993),
and of the mean of repetitions (Student 1908)."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune_prune.tasks.metrics import ERROR, Metric
from tune_prune.tasks.sample_values import Resamples, SampleValues

NORMAL = statistics.NormalDist()

RESAMPLES = 2000
"""Bootstrap samples of an interval."""


def wilson_interval(wrong: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Computes the interval, in percent, of the error of `wrong` among `n` images (Wilson 1927); 95 % for z = 1.96.

    It always contains 100 * wrong / n, also where rounding would put an end on the wrong side. Raises `ValueError`
    where `n` is 0 or `wrong` is not in [0, n].
    """
    if not 0 <= wrong <= n or n == 0:
        raise ValueError(f"wrong must be in [0, n] and n positive, got {wrong} of {n}")
    share = wrong / n
    scale = 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return 100 * max(0.0, min(share, middle - half)), 100 * min(1.0, max(share, middle + half))


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a value on test data, and in words its `method`.

    Both ends are None where there is none, and the method then says why.
    """

    low: float | None
    high: float | None
    method: str


def bootstrap_interval(values: Sequence[float], count: int | None = None) -> tuple[float, float]:
    """Computes the 95 % interval of the mean of `count` numbers that are distributed as `values`, by default as many.

    It is the bootstrap interval that is bias-corrected and accelerated, BCa (Efron and Tibshirani 1993, ch. 14), of
    `RESAMPLES` bootstrap samples, always the same ones.
    """
    found, count = np.asarray(values, dtype=np.float64), count or len(values)
    around = found - found.mean()
    scale = float(np.abs(around).max())
    if scale == 0:
        return float(found[0]), float(found[0])
    around = around / scale
    drawn = np.random.default_rng(0).multinomial(count, np.full(len(found), 1 / len(found)), RESAMPLES)
    means = drawn @ around / count
    below = (np.count_nonzero(means < -1e-9) + np.count_nonzero(means <= 1e-9)) / (2 * RESAMPLES)  # ties count half
    bias = NORMAL.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    # of the mean, the jackknife's acceleration is a sixth of the skewness over the root of the count
    acceleration = float((around**3).sum() / (around**2).sum() ** 1.5) * math.sqrt(len(found) / count) / 6
    shifted = [bias + NORMAL.inv_cdf(share) for share in (0.025, 0.975)]
    shares = [NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
    low, high = found.mean() + scale * np.quantile(means, shares)
    return float(low), float(high)


@dataclass(frozen=True)
class BootstrapDistribution:
    """Bootstrap values of a statistic, corrected for bias and skewness (BCa; Efron and Tibshirani 1993, ch. 14).

    `values` are of resamples, `without` of all but each unit of the data, `whole` is of all of it.
    """

    values: np.ndarray
    without: np.ndarray
    whole: float

    @property
    def bias(self) -> float:
        """The normal quantile of the share of resamples below the whole; ties count half."""
        below = np.count_nonzero(self.values < self.whole) + np.count_nonzero(self.values <= self.whole)
        count = len(self.values)
        return NORMAL.inv_cdf(min(max(below / (2 * count), 1 / count), 1 - 1 / count))

    @property
    def acceleration(self) -> float:
        """A sixth of the skewness of the jackknife's values."""
        around = self.without.mean() - self.without
        spread = float((around**2).sum())
        return float((around**3).sum()) / (6 * spread**1.5) if spread else 0.0

    def quantile(self, share: float) -> float:
        """The end of the interval below which the statistic's true value lies with the probability `share`."""
        shifted = self.bias + NORMAL.inv_cdf(share)
        return float(np.quantile(self.values, NORMAL.cdf(self.bias + shifted / (1 - self.acceleration * shifted))))

    def probability_below(self, value: float) -> float:
        """The share whose `quantile` is this value."""
        count = len(self.values)
        below = (np.count_nonzero(self.values < value) + np.count_nonzero(self.values <= value)) / (2 * count)
        shifted = NORMAL.inv_cdf(min(max(below, 1 / (count + 1)), 1 - 1 / (count + 1))) - self.bias
        return NORMAL.cdf(shifted / (1 + self.acceleration * shifted) - self.bias)


def name_samples(measured: int, count: int) -> str:
    """Says of how many samples something was measured where these are not all; else ""."""
    return f"; of {measured:,} of {count:,} samples" if measured < count else ""


def find_resampled_interval(found: Resamples, value: float) -> Interval:
    """The 95 % interval of the `value` of a metric on a whole split, from the metric of resamples."""
    distribution = BootstrapDistribution(np.array(found.values), np.array(found.without), found.whole)
    ends = [distribution.quantile(share) + value - found.whole for share in (0.025, 0.975)]
    method = "bootstrap (BCa) of resamples" + name_samples(found.measured, found.count)
    return Interval(min(value, *ends), max(value, *ends), method)


def find_interval(samples: SampleValues, value: float, name: str) -> Interval:
    """The 95 % interval of the `value` of a metric called `name` on a whole split.

    Where the metric is a share of samples it is Wilson's, else a bootstrap interval: a metric that is a monotone
    function of a mean has the interval of that mean, by the same function. It always contains the value.
    """
    count, kind = samples.count, f"{name} is {samples.mean.name} over samples"
    if samples.unit is not None and 0 <= value <= samples.unit:
        unit = samples.unit / 100
        ends = [unit * end for end in wilson_interval(round(value / unit * count / 100), count)]
        method = f"Wilson, {name} is a share of samples"
    else:
        found = bootstrap_interval(samples.terms, count)
        shift = samples.term(value) - statistics.fmean(samples.terms)  # 0 where the terms are of all samples
        ends = [samples.value(end + shift) for end in found]
        method = f"bootstrap (BCa), {kind}" + name_samples(len(samples.values), count)
    return Interval(min(value, *ends), max(value, *ends), method)


T95 = (6.31375, 2.91999, 2.35336, 2.13185, 2.01505, 1.94318, 1.89458)
"""One-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom (Student 1908)."""


def t95(freedom: int) -> float:
    """Computes the 95 % quantile of Student's t for at least 1 degree of freedom, to within 1e-5."""
    if freedom < 1:
        raise ValueError(f"degrees of freedom must be at least 1, got {freedom}")
    if freedom <= len(T95):
        return T95[freedom - 1]
    # a series around the normal quantile in powers of 1 / freedom (Abramowitz and Stegun 1964, 26.7.5)
    z = statistics.NormalDist().inv_cdf(0.95)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


@dataclass(frozen=True)
class Confirmation:
    """The repetitions of a member of the front: their validation metrics, at least two, and the limit.

    A repetition that diverged has the worst value there is: 100 % of error, an infinity of other metrics. `others` are
    the same repetitions by the further metrics that are limited, None of one that they did not measure.
    """

    metrics: tuple[float, ...]
    limit: float
    metric: Metric = ERROR
    others: tuple["Confirmation | None", ...] = ()

    def __post_init__(self) -> None:
        if len(self.metrics) < 2:
            raise ValueError(f"a spread needs at least 2 repetitions, got {len(self.metrics)}")

    @property
    def mean(self) -> float:
        """The mean of the metrics."""
        return statistics.mean(self.metrics)  # exact: where all values are equal to the limit, so is their mean

    @property
    def spread(self) -> float:
        """The sample standard deviation of the metrics: of errors in percentage points."""
        return statistics.stdev(self.metrics) if all(map(math.isfinite, self.metrics)) else math.inf

    @property
    def bound(self) -> float:
        """The one-sided 95 % confidence bound of the mean, on its worse side (Student 1908)."""
        margin = t95(len(self.metrics) - 1) * self.spread / math.sqrt(len(self.metrics))
        return self.metric.value(self.metric.cost(self.mean) + margin)

    @property
    def holds(self) -> bool:
        """Whether the bound keeps the limit, and those of all others theirs."""
        own = self.metric.cost(self.bound) <= self.metric.cost(self.limit)
        return own and all(other is not None and other.holds for other in self.others)
