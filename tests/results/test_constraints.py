from hypothesis import given
from hypothesis import strategies as st

from tune_prune.results.constraints import COSTS, Constraints

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
