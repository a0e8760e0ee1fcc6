from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.pruning.plan import SLACK, Plan, schedules

progress = st.floats(0, 1, exclude_min=True)
ratios = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("name", schedules)
@given(ratio=ratios, one=progress, other=progress)
def test_contract(name: str, ratio: float, one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert 0 <= schedules[name](ratio, early) <= schedules[name](ratio, late) <= ratio + 1e-15
    assert schedules[name](ratio, 1.0) == pytest.approx(ratio, abs=1e-15)


@given(st.integers(1, 50).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))), ratios)
def test_closed_forms(rounds: tuple[int, int], ratio: float) -> None:
    at = Fraction(*rounds)
    assert schedules["one-shot"](ratio, float(at)) == ratio
    assert schedules["linear"](ratio, float(at)) == pytest.approx(ratio * float(at))
    assert schedules["cubic"](ratio, float(at)) == pytest.approx(ratio * float(3 * at - 3 * at**2 + at**3))


@given(st.integers(1, 50), st.floats(0, 0.999))
def test_geometric_leaves_the_same_share_every_time(rounds: int, ratio: float) -> None:
    kept = [1 - schedules["geometric"](ratio, number / rounds) for number in range(1, rounds + 1)]
    assert kept == pytest.approx([(1 - ratio) ** (1 / rounds) * before for before in [1.0, *kept[:-1]]])


@given(st.integers(1, 30), st.floats(0.1, 0.999), st.floats(0.1, 0.999), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_rounds_that_remove_next_to_nothing_are_left_out(
    rounds: int, one: float, two: float, first: float, second: float
) -> None:
    plan = Plan({"1": one, "2": two}, {"1": "mag", "2": "mag"}, rounds=rounds, schedule="geometric")
    assert plan.rounds_within({}) == 0
    reached = {"1": first, "2": second}
    done = plan.rounds_within(reached)
    assert done < rounds

    def removed(round_: int) -> float:
        """The most of what is left of a layer that a round removes."""
        return max(1 - (1 - ratio) / (1 - reached[label]) for label, ratio in plan.ratios_at(round_).items())

    assert all(removed(round_) <= SLACK + 1e-9 for round_ in range(1, done + 1))
    assert done + 1 == rounds or removed(done + 1) > SLACK - 1e-9


def test_in_other_schedules_a_round_that_removes_anything_is_run() -> None:
    plan = Plan({"1": 0.8}, {"1": "mag"}, rounds=4, schedule="linear")
    assert [plan.rounds_within({"1": reached}) for reached in (0.19, 0.21, 0.59, 0.61)] == [0, 1, 2, 3]
    small = Plan({"1": 0.8}, {"1": "mag"}, rounds=4, schedule="geometric")
    assert [small.rounds_within({"1": reached}) for reached in (0.1, 0.2, 0.33, 0.5)] == [0, 1, 1, 2]
