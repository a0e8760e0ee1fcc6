import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.results.confidence import (
    BootstrapDistribution,
    Confirmation,
    bootstrap_interval,
    find_interval,
    find_resampled_interval,
    t95,
    wilson_interval,
)
from tune_prune.tasks.metrics import Metric
from tune_prune.tasks.sample_values import ARITHMETIC, GEOMETRIC, QUADRATIC, Mean, Resamples, SampleValues


def test_the_quantile_is_that_of_tables() -> None:
    assert [round(t95(freedom), 3) for freedom in (1, 2, 4, 9, 29)] == [6.314, 2.920, 2.132, 1.833, 1.699]
    assert round(t95(10**9), 4) == 1.6449
    with pytest.raises(ValueError, match="at least 1, got 0"):
        t95(0)


def test_the_quantile_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the dev extra")
    for freedom in [*range(1, 61), 100, 1000]:
        assert t95(freedom) == pytest.approx(stats.t.ppf(0.95, freedom), abs=1e-5)


errors = st.lists(st.floats(0, 100), min_size=2, max_size=12)


@pytest.mark.parametrize("found", [(0.5, 0.9), (1.2, 1.3, 1.1), (0.0, 50.0, 100.0, 7.0), tuple(range(40))])
def test_the_bound_is_scipy_s(found: tuple[float, ...]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the dev extra")
    expected = stats.ttest_1samp(found, 0, alternative="less").confidence_interval(0.95).high
    assert Confirmation(found, 1.0).bound == pytest.approx(expected, rel=1e-5)


@given(errors, st.floats(0, 100))
def test_it_holds_where_the_bound_keeps_the_limit(found: list[float], limit: float) -> None:
    made = Confirmation(tuple(found), limit)
    assert min(found) <= made.mean <= made.bound
    assert made.holds == (made.bound <= limit)
    assert replace(made, limit=made.bound).holds


def test_errors_at_the_limit_hold_and_one_error_says_nothing() -> None:
    assert Confirmation((1.36,) * 3, 1.36).holds
    assert not Confirmation((1.36, 1.36, 1.37), 1.36).holds
    with pytest.raises(ValueError, match="at least 2 repetitions, got 1"):
        Confirmation((1.0,), 2.0)


def test_the_bound_is_above_the_true_mean_19_times_in_20() -> None:
    drawn = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).double()
    above = [Confirmation(tuple(row), 0.0).bound >= 0 for row in drawn.tolist()]
    assert sum(above) / len(above) == pytest.approx(0.95, abs=0.015)  # four standard errors


def test_where_a_higher_metric_is_better_the_bound_is_below_the_mean() -> None:
    lower = Confirmation((0.2, 0.3, 0.25), 0.4, Metric("rmse"))
    higher = Confirmation((-0.2, -0.3, -0.25), -0.4, Metric("closeness", "higher"))
    assert (lower.mean, lower.bound, lower.spread) == (-higher.mean, -higher.bound, higher.spread)
    assert higher.bound < higher.mean
    assert lower.holds == higher.holds
    assert not replace(higher, limit=-0.26).holds


def test_a_repetition_that_diverged_confirms_nothing() -> None:
    for metric, worst in ((Metric("rmse"), math.inf), (Metric("closeness", "higher"), -math.inf)):
        made = Confirmation((0.2, worst), 9e9 if worst > 0 else -9e9, metric)
        assert not made.holds
        assert made.mean == made.bound == worst


# Bootstrap intervals


@pytest.mark.parametrize("kind", ["exponential", "normal", "share"])
def test_the_bootstrap_interval_is_scipy_s(kind: str) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the dev extra")
    random = np.random.default_rng(3)
    drawn = {"exponential": random.exponential(size=120), "normal": random.normal(5, 1, 40)}
    values = drawn.get(kind, (random.random(200) < 0.1).astype(float))
    expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=1).confidence_interval
    error = values.std() / math.sqrt(len(values))
    assert bootstrap_interval(values) == pytest.approx([*expected], abs=(0.3 if kind == "share" else 0.15) * error)


def test_the_interval_of_resamples_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the dev extra")
    values = np.random.default_rng(0).gamma(1.5, 2.0, 80)
    drawn = np.random.default_rng(1).integers(80, size=(9999, 80))
    without = tuple(float(np.delete(values, at).std()) for at in range(80))
    found = Resamples(float(values.std()), tuple(float(values[one].std()) for one in drawn), without, 80, 80)
    interval = find_resampled_interval(found, found.whole)
    expected = stats.bootstrap((values,), np.std, n_resamples=9999, rng=2, method="BCa").confidence_interval
    assert interval.low == pytest.approx(expected.low, rel=0.02)
    assert interval.high == pytest.approx(expected.high, rel=0.02)
    shifted = find_resampled_interval(replace(found, count=100), found.whole + 1)
    assert (shifted.low, shifted.high) == pytest.approx((interval.low + 1, interval.high + 1))
    assert shifted.method == "bootstrap (BCa) of resamples; of 80 of 100 samples"
    distribution = BootstrapDistribution(np.array(found.values), np.array(found.without), found.whole)
    for share in (0.05, 0.5, 0.95):
        assert distribution.probability_below(distribution.quantile(share)) == pytest.approx(share, abs=1e-3)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_the_bootstrap_interval_scales_with_the_values(values: list[float]) -> None:
    low, high = bootstrap_interval(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap_interval([4 * value for value in values]) == pytest.approx((4 * low, 4 * high), abs=1e-9)


def test_the_interval_of_a_mean_of_more_samples_is_narrower_by_the_root() -> None:
    values = np.random.default_rng(0).normal(size=400)
    few, many = (np.ptp(bootstrap_interval(values, count)) for count in (400, 40_000))
    assert few / many == pytest.approx(10, rel=0.1)


def test_the_bootstrap_interval_covers_the_true_mean_19_times_in_20() -> None:
    random = np.random.default_rng(5)
    ends = [bootstrap_interval(random.exponential(size=60)) for _ in range(300)]
    assert np.mean([low <= 1 <= high for low, high in ends]) == pytest.approx(0.94, abs=0.04)


def samples_of(values: list[float], mean: Mean = ARITHMETIC, count: int | None = None) -> SampleValues:
    return SampleValues(tuple(values), mean, count or len(values))


@pytest.mark.parametrize("mean", [QUADRATIC, GEOMETRIC])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_follows_the_metric_s_function_of_a_mean(mean: Mean, sign: int) -> None:
    values = np.random.default_rng(2).uniform(1, 3, size=50)
    found = find_interval(samples_of([*(sign * values)], mean), mean.of([*(sign * values)]), "it")
    ends = sorted(sign * mean.inverse(end) for end in bootstrap_interval([*mean.function(values)]))
    assert (found.low, found.high) == pytest.approx(ends)
    assert found.method == f"bootstrap (BCa), it is {mean.name} over samples"


def test_a_share_of_samples_has_wilson_s_interval() -> None:
    values = [1.0] * 30 + [0.0] * 10
    found = find_interval(samples_of(values), 0.75, "accuracy")
    assert (100 * (found.low or 0), 100 * (found.high or 0)) == pytest.approx(wilson_interval(30, 40))
    assert found.method == "Wilson, accuracy is a share of samples"
    percent = find_interval(samples_of([100 * value for value in values], count=4000), 80.0, "accuracy")
    assert (percent.low, percent.high) == pytest.approx(wilson_interval(3200, 4000))


def test_the_interval_of_a_sample_is_around_the_value_of_all() -> None:
    values = [*np.random.default_rng(4).normal(3, 1, size=500)]
    found = find_interval(samples_of(values, count=10_000), 3.1, "mae")
    assert found.low is not None
    assert found.high is not None
    assert found.low < 3.1 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(values) / 100, rel=0.1)
    assert found.method.endswith("; of 500 of 10,000 samples")
