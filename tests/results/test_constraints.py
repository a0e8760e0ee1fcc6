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
