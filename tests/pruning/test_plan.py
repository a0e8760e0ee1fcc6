from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.pruning.plan import schedules

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
