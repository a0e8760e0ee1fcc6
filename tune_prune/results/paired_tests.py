"""Tests whether a model is worse than another one by less than a margin; both were measured on the same samples.

Of the error, the p-value is that of the exact unconditional test by the score statistic of Tango (1998, Statistics in
Medicine 17), over the nuisance parameter as Berger and Boos (1994) restrict it; of any other mean over samples it is
that of the studentized bootstrap, bootstrap-t (Efron and Tibshirani 1993, chapter 12), which is approximate.
"""

import math
import statistics
from dataclasses import dataclass

import numpy as np

from tune_prune.results.confidence import BootstrapDistribution, name_samples
from tune_prune.tasks.metrics import Metric
from tune_prune.tasks.sample_values import Resamples, SampleValues

NUISANCE = 0.0005
"""The probability with which the interval of the nuisance parameter may miss it; it is added to the p-value."""

GRID = 40
"""Values of the nuisance parameter for which the p-value is computed; the largest counts."""

RESAMPLES = 1999
"""Bootstrap samples of a test."""

POWER = 0.8
"""The probability of the claim with as many samples as are said to be needed, if models are as they were measured."""


@dataclass(frozen=True)
class PairedTest:
    """A test of one model against the dense one: the p-value of the hypothesis that it is worse by more than the
    tradeoff, the upper bound of how much worse it is, in the metric's unit, the samples that would be needed, or None
    where no number is enough, and the method in words."""

    p_value: float
    bound: float
    samples_needed: int | None
    method: str


@dataclass(frozen=True)
class PairedErrors:
    """Two models on the same `count` samples: `worse` counts those that the pruned one alone gets wrong, `better` those
    that the dense one alone does."""

    worse: int
    better: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.worse, self.better) < 0 or self.worse + self.better > self.count:
            raise ValueError(f"there are no {self.worse} and {self.better} of {self.count} samples")

    @property
    def difference(self) -> float:
        """How much larger the pruned model's error is, as a share of the samples."""
        return (self.worse - self.better) / self.count

    def p_value(self, margin: float) -> float:
        """The p-value of the hypothesis that the pruned model's error is larger by `margin`, a share, or by more."""
        from scipy.stats import beta, binom

        if not -1 < margin < 1:
            return float(margin <= -1)
        n, observed = self.count, float(score(self.worse, self.better, self.count, margin))
        # Clopper and Pearson's interval of the share that the dense model alone gets wrong
        low = float(beta.ppf(NUISANCE / 2, self.better, n - self.better + 1)) if self.better else 0.0
        high = float(beta.ppf(1 - NUISANCE / 2, self.better + 1, n - self.better)) if self.better < n else 1.0
        low, high = max(low, -margin, 0.0), min(max(high, -margin), (1 - margin) / 2)
        shares = np.linspace(min(low, high), high, GRID)
        ends = binom.ppf([1e-9, 1 - 1e-9], n, [shares[0] + margin, shares[-1] + margin])
        worse = np.arange(int(ends[0]), int(ends[1]) + 1)
        least = _least_better(worse, n, margin, observed)
        return min(1.0, NUISANCE + float(_probabilities(worse, least, n, margin, shares).max()))

    def bound(self, level: float) -> float:
        """The upper confidence bound of how much larger the pruned model's error is: the least margin that is refuted,
        a share, to within 1e-5."""
        low, high = max(-1.0, self.difference), 1.0
        while high - low > 1e-5:
            middle = (low + high) / 2
            low, high = (low, middle) if self.p_value(middle) <= 1 - level else (middle, high)
        return high

    def test(self, tradeoff: float, level: float) -> "PairedTest":
        """Tests whether the pruned model's error is at most `tradeoff` points larger."""
        margin = tradeoff / 100
        variance = (self.worse + self.better) / self.count - self.difference**2
        needed = _count_needed(margin - self.difference, max(variance, margin * (1 - margin) / 2), level)
        return PairedTest(self.p_value(margin), 100 * self.bound(level), needed, "exact paired test (Tango's score)")


def score(worse: np.ndarray | int, better: np.ndarray | int, n: int, margin: float) -> np.ndarray:
    """Tango's score statistic: how much larger the difference of two paired shares is than `margin`, in standard errors
    under the hypothesis that it is `margin`."""
    b, c = np.asarray(worse, dtype=np.float64), np.asarray(better, dtype=np.float64)
    linear = (2 * n - b + c) * margin - b - c
    root = np.sqrt(np.maximum(0.0, linear**2 + 8 * n * c * margin * (1 - margin)))
    share = (root - linear) / (4 * n)  # the most probable share of `better` under the hypothesis
    variance = n * np.maximum(0.0, 2 * share + margin * (1 - margin))
    difference = b - c - n * margin
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.where(difference == 0, 0.0, difference / np.sqrt(variance))
    return found


def _least_better(worse: np.ndarray, n: int, margin: float, observed: float) -> np.ndarray:
    """For each number of `worse`, the least number of `better` whose score is at most the observed one; n + 1 if none.

    The score falls in `better`.
    """
    low, high = np.zeros(len(worse), dtype=np.int64), n - worse + 1
    while (low < high).any():
        middle = (low + high) // 2
        extreme = score(worse, middle, n, margin) <= observed + 1e-9
        low, high = np.where(extreme | (low >= high), low, middle + 1), np.where(extreme, middle, high)
    return np.where(low > n - worse, n + 1, low)


def _probabilities(worse: np.ndarray, least: np.ndarray, n: int, margin: float, shares: np.ndarray) -> np.ndarray:
    """The probabilities of a score as small as the observed one, where the dense model alone errs in these shares."""
    from scipy.stats import binom

    p = np.clip(shares + margin, 0.0, 1.0)[:, None]
    rest = np.clip(shares[:, None] / np.maximum(1 - p, 1e-300), 0.0, 1.0)
    found: np.ndarray = (binom.pmf(worse, n, p) * binom.sf(least - 1, n - worse, rest)).sum(1)
    return found


def _count_needed(left: float, variance: float, level: float) -> int | None:
    """Samples of which the mean's standard error is small enough for what is `left` to a limit; rounded up."""
    if left <= 0:
        return None
    normal = statistics.NormalDist()
    exact = variance * ((normal.inv_cdf(level) + normal.inv_cdf(POWER)) / left) ** 2
    unit = int(10 ** max(0, math.floor(math.log10(max(exact, 1.0))) - 1))  # two digits are enough
    return math.ceil(exact / unit) * unit


@dataclass(frozen=True)
class PairedMeans:
    """A metric that is a mean over samples, of the pruned and the dense model, measured of the same samples alone."""

    pruned: SampleValues
    dense: SampleValues
    metric: Metric

    def test(self, tradeoff: float, level: float) -> PairedTest:
        """Tests whether the pruned model is worse by at most `tradeoff`, by the studentized bootstrap of pairs."""
        count = len(self.pruned.values)
        method = f"paired bootstrap-t (approximate), {self.metric.name} is {self.pruned.mean.name} over samples"
        method += name_samples(count, self.pruned.count)
        difference, error = (float(found[0]) for found in self._estimate())
        if error <= 1e-12 * abs(difference):  # as where nothing was pruned
            return PairedTest(float(difference > tradeoff), difference, None, method)
        drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        differences, errors = self._estimate(drawn)
        scores = (differences - difference) / np.maximum(errors, np.finfo(float).tiny)
        p_value = (1 + np.count_nonzero(scores <= (difference - tradeoff) / error)) / (RESAMPLES + 1)
        bound = difference - error * float(np.quantile(scores, 1 - level))
        return PairedTest(float(p_value), bound, _count_needed(tradeoff - difference, count * error**2, level), method)

    def _estimate(self, drawn: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """How much worse the pruned model's metric is, and the standard error of that by the delta method.

        Both are [draws]. `drawn`, [draws, n], counts how often each sample was drawn; without it each counts once.
        """
        terms = np.array([self.pruned.terms, self.dense.terms])
        centres = terms.mean(1, keepdims=True)
        one, other = terms - centres
        powers = np.stack([one, other, one**2, other**2, one * other], axis=1)
        means = (powers.mean(0, keepdims=True) if drawn is None else drawn @ powers / len(one)).T
        pruned, pruned_slope = _evaluate(self.pruned, means[0] + centres[0])
        dense, dense_slope = _evaluate(self.dense, means[1] + centres[1])
        variance = pruned_slope**2 * (means[2] - means[0] ** 2) + dense_slope**2 * (means[3] - means[1] ** 2)
        variance -= 2 * pruned_slope * dense_slope * (means[4] - means[0] * means[1])
        sign = -1 if self.metric.better == "higher" else 1
        return sign * (pruned - dense), np.sqrt(np.maximum(variance, 0.0) / len(one))


@dataclass(frozen=True)
class PairedResamples:
    """A metric that is no mean over samples, of the pruned and the dense model, measured of the same resamples."""

    pruned: Resamples
    dense: Resamples
    metric: Metric

    def test(self, tradeoff: float, level: float) -> PairedTest:
        """Tests whether the pruned model is worse by at most `tradeoff`, by the bootstrap of pairs (BCa)."""
        method = f"paired bootstrap of resamples (BCa, approximate), {self.metric.name} is no mean over samples"
        method += name_samples(self.pruned.measured, self.pruned.count)
        sign = -1 if self.metric.better == "higher" else 1
        parts = ("values", "without", "whole")
        values, without, whole = (
            sign * (np.array(getattr(self.pruned, part)) - np.array(getattr(self.dense, part))) for part in parts
        )
        if values.min() == values.max():  # as where nothing was pruned
            return PairedTest(float(whole > tradeoff), float(whole), None, method)
        found = BootstrapDistribution(values, without, float(whole))
        needed = _count_needed(tradeoff - float(whole), self.pruned.measured * float(values.var(ddof=1)), level)
        return PairedTest(1 - found.probability_below(tradeoff), found.quantile(level), needed, method)


def _evaluate(of: SampleValues, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a metric for means of its terms, and the derivatives there."""
    value = np.vectorize(of.value, otypes=[float])
    step = 1e-5 * (np.abs(means) + float(np.std(of.terms)))
    return value(means), (value(means + step) - value(means - step)) / (2 * step)
