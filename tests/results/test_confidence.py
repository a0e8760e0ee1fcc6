import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.results.confidence import Confirmation, t95
from tune_prune.tasks.metrics import Metric


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
