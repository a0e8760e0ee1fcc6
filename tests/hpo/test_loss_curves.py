import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.hpo.groups import LossCurve, allocate_weights

curves = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(
        LossCurve,
        weights=st.integers(10, 10**6),
        scale=st.floats(1e-6, 1e-1),
        power=st.floats(0.5, 6),
        low=st.floats(0.001, 0.2),
        high=st.floats(0.2, 1.0),
    ),
    min_size=1,
)


@given(curves, st.floats(0, 1))
def test_so_many_weights_stay_as_far_as_bounds_allow(found: dict[str, LossCurve], share: float) -> None:
    wanted = share * sum(curve.weights for curve in found.values())
    shares = allocate_weights(found, wanted)
    least, most = (sum(c.weights * getattr(c, end) for c in found.values()) for end in ("low", "high"))
    kept = sum(curve.weights * shares[layer] for layer, curve in found.items())
    assert kept == pytest.approx(min(max(wanted, least), most), rel=1e-6)


def test_at_a_price_the_curve_falls_by_it() -> None:
    curve, step = LossCurve(1000, 1e-3, 2.0, 1e-6, 1.0), 1e-6
    keep = curve.keep(1e-5)
    fall = curve.scale * ((keep - step) ** -curve.power - (keep + step) ** -curve.power) / (2 * step)
    assert fall / curve.weights == pytest.approx(1e-5, rel=1e-6)
