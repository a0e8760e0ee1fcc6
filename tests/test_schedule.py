from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.schedule import schedules

progress = st.floats(0, 1, exclude_min=True)


@pytest.mark.parametrize("name", schedules)
@given(one=progress, other=progress)
def test_contract(name: str, one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert 0 <= schedules[name](early) <= schedules[name](late) <= 1
    assert schedules[name](1.0) == 1


@given(st.integers(1, 50).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_closed_forms(rounds: tuple[int, int]) -> None:
    at = Fraction(*rounds)
    assert schedules["one-shot"](float(at)) == 1
    assert schedules["linear"](float(at)) == pytest.approx(float(at))
    assert schedules["cubic"](float(at)) == pytest.approx(float(3 * at - 3 * at**2 + at**3))
