import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.results import pareto
from tune_prune.results.constraints import COSTS, Constraints, make_constraints
from tune_prune.tasks.metrics import ERROR, Metric

costs = st.fixed_dictionaries({name: st.floats(0, 1e6) for name in COSTS})
at_most = st.dictionaries(st.sampled_from([*COSTS]), st.floats(1e-3, 1e6))


@given(st.floats(0, 100), at_most, st.floats(0, 100), costs)
def test_feasible_is_where_nothing_is_violated(
    limit: float, at_most: dict[str, float], error: float, found: dict[str, float]
) -> None:
    limits = Constraints(limit, at_most)
    violations = limits.violations(error, found)
    assert len(violations) == 1 + len(at_most)
    assert limits.feasible(error, found) == (error <= limit and limits.within(found))
    if min(abs(v) for v in violations.values()) > 1e-9:
        assert limits.feasible(error, found) == all(v <= 0 for v in violations.values())


def test_objectives_follow_what_every_point_has() -> None:
    assert Constraints(1.0, objectives=("bytes",)).values(2.0, 0.9, {"macs": 0.3, "bytes": 40.0}) == [2.0, 0.9, 40.0]


@given(
    st.floats(0, 100),
    st.floats(0, 100),
    st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 100)), max_size=6),
    st.floats(0, 100),
)
def test_which_way_is_better_changes_no_constraint(
    dense: float, tradeoff: float, found: list[tuple[float, float]], value: float
) -> None:
    lower = make_constraints(Metric("rmse"), dense, tradeoff)
    higher = make_constraints(Metric("closeness", "higher"), -dense, tradeoff)
    assert lower.feasible(value, {}) == higher.feasible(-value, {})
    assert [*lower.violations(value, {}).values()] == [*higher.violations(-value, {}).values()]
    assert lower.values(1.0, value, {}) == higher.values(1.0, -value, {})
    assert lower.hypervolume(found) == higher.hypervolume(found)


def test_a_limit_is_at_most_the_tradeoff_worse() -> None:
    f1 = make_constraints(Metric("f1", "higher"), 0.914, 0.01)
    assert f1.limit == pytest.approx(0.904)
    assert f1.feasible(f1.limit, {})
    assert not f1.feasible(0.9039, {})
    assert f1.violations(0.9, {}) == {"limit - val_f1": pytest.approx(0.004)}


def test_the_hypervolume_is_of_what_the_tradeoff_is_worth() -> None:
    """From the limit to one tradeoff better than the dense model; for the error to 0; 0 without a tradeoff."""
    f1 = make_constraints(Metric("f1", "higher"), 0.9, 0.1)
    assert f1.hypervolume([(0.9, -0.8)]) == pytest.approx(0.0)  # at the limit
    assert f1.hypervolume([(0.9, -0.9)]) == pytest.approx(1 / 6)
    assert f1.hypervolume([(0.9, -1.0)]) == f1.hypervolume([(0.9, -2.0)]) == pytest.approx(1 / 3)
    assert make_constraints(Metric("f1", "higher"), 0.9, 0.0).hypervolume([(0.9, -1.0)]) == 0
    error = make_constraints(ERROR, 1.0, 1.0)
    assert error.hypervolume([(0.9, 1.0)]) == pareto.hypervolume([(0.9, 1.0)], 2.0) == pytest.approx(1 / 6)


# Limits on further metrics


numbers = st.floats(-1e3, 1e3)


@given(numbers, numbers, numbers)
def test_limits_on_further_metrics_hold_from_either_side(value: float, low: float, high: float) -> None:
    limits = Constraints(1.0, {"val_ece": high}, at_least={"val_f1": low})
    found = {"val_ece": value, "val_f1": value}
    excesses = limits.excesses(found)
    assert [*excesses] == ["val_ece / limit - 1", "1 - val_f1 / limit"]
    assert limits.within(found) == (low <= value <= high)
    if min(abs(value - low), abs(value - high)) > 1e-9:
        assert [excess <= 0 for excess in excesses.values()] == [value <= high, value >= low]
    assert all(math.isfinite(excess) for excess in excesses.values())


@pytest.mark.parametrize(
    ("limit", "value", "excess"), [(2.0, 3.0, 0.5), (0.0, 0.25, 0.25), (-2.0, -1.0, 0.5), (-2.0, -3.0, -0.5)]
)
def test_an_excess_is_a_share_of_the_limit_of_any_sign(limit: float, value: float, excess: float) -> None:
    assert [*Constraints(1.0, {"val_x": limit}).excesses({"val_x": value}).values()] == [excess]
    assert [*Constraints(1.0, at_least={"val_x": limit}).excesses({"val_x": value}).values()] == [-excess]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_has_an_excess(value: float) -> None:
    limits = Constraints(1.0, {"val_x": 1.0}, at_least={"val_y": 1.0})
    found = {"val_x": value, "val_y": value}
    most, least = limits.excesses(found).values()
    assert math.isfinite(most)
    assert math.isfinite(least)
    assert (most > 0) == (not value < 0)
    assert (least > 0) == (not value > 0)
    assert not limits.within(found)


def test_what_refinement_is_expected_to_leave_of_a_metric_that_breaks_its_limit() -> None:
    limits = Constraints(
        1.0, {"macs": 0.5, "val_ece": 3.0}, at_least={"val_f1": 0.8}, dense={"val_f1": 0.9, "val_ece": 1.0}
    )
    found = limits.after_refinement({"macs": 0.6, "val_f1": 0.5, "val_ece": 2.0}, 0.25)
    assert found == {"macs": 0.6, "val_f1": pytest.approx(0.8), "val_ece": 2.0}


def test_limits_in_words() -> None:
    limits = Constraints(1.0, {"macs": 0.5, "val_ece": 3.0}, at_least={"val_f1": 0.8})
    assert limits.describe_limits() == "macs of 0.5 and val_ece of 3 at most and val_f1 of 0.8 at least"
    assert Constraints(1.0, {"macs": 0.5}).describe_limits() == "macs of 0.5 at most"
    names = [(one.metric.name, one.metric.better, one.limit) for one in limits.of_further_metrics()]
    assert names == [("ece", "lower", 3.0), ("f1", "higher", 0.8)]
