import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import loss_curves

from tune_prune.hpo.groups import MAX_RATIO, SCALES, Group, GroupedRatio, LossCurve, allocate_weights

shapes = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple), min_size=1
)


def group(scale: str, found: dict[str, tuple[int, ...]]) -> Group:
    curves = {
        layer: LossCurve(math.prod(shape), 1e-4 * (1 + at), 0.5 + at, 1e-9, 1.0)
        for at, (layer, shape) in enumerate(found.items())
    }
    return Group("group/*", scale, found, curves)


@pytest.mark.parametrize("scale", SCALES)
@given(found=shapes, ratio=st.floats(0, MAX_RATIO))
def test_the_layers_ratios_make_the_groups_ratio_again(
    scale: str, found: dict[str, tuple[int, ...]], ratio: float
) -> None:
    made = group(scale, found)
    ratios = made.ratios(ratio)
    assert list(ratios) == list(found)
    assert all(0 <= r <= MAX_RATIO for r in ratios.values())
    if max(ratios.values()) < MAX_RATIO:  # where no layer is at its bound
        assert made.ratio(ratios) == pytest.approx(ratio, abs=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@given(found=shapes, first=st.floats(0, MAX_RATIO), second=st.floats(0, MAX_RATIO))
def test_a_higher_ratio_of_the_group_is_a_higher_ratio_of_every_layer(
    scale: str, found: dict[str, tuple[int, ...]], first: float, second: float
) -> None:
    less, more = (group(scale, found).ratios(ratio) for ratio in sorted((first, second)))
    assert all(less[layer] <= more[layer] + 1e-9 for layer in found)


def test_erk_by_hand() -> None:
    # densities (10 + 10) / 100 and (20 + 10) / 200: of 300 weights 75 are kept, 30 and 45
    assert Group("", "erk", {"a": (10, 10), "b": (20, 10)}).ratios(0.75) == {
        "a": pytest.approx(0.7),
        "b": pytest.approx(0.775),
    }


def test_erk_keeps_small_layers_whole_and_the_others_share_the_rest() -> None:
    made = Group("", "erk", {"small": (2, 2), "large": (100, 100)})
    assert made.ratios(0.5) == {"small": 0.0, "large": pytest.approx(1 - (0.5 * 10004 - 4) / 10000)}


def test_erk_of_a_convolution_counts_its_kernel() -> None:
    made = Group("", "erk", {"conv": (16, 8, 3, 3), "fc": (10, 16)})
    keeps = {layer: 1 - ratio for layer, ratio in made.ratios(0.9).items()}
    assert keeps["fc"] / keeps["conv"] == pytest.approx((26 / 160) / (30 / 1152))


def test_sensitivity_keeps_more_of_the_sensitive_layer() -> None:
    curves = {"a": LossCurve(1000, 1e-4, 2.0, 1e-9, 1.0), "b": LossCurve(1000, 1e-2, 2.0, 1e-9, 1.0)}
    ratios = Group("", "sensitivity", {"a": (10, 100), "b": (10, 100)}, curves).ratios(0.9)
    # the same price: the shares kept differ by the third root of the scales
    assert (1 - ratios["b"]) / (1 - ratios["a"]) == pytest.approx(100 ** (1 / 3), rel=1e-6)


def test_a_grouped_ratio_as_text() -> None:
    assert str(GroupedRatio(Group("group/layer1.*", "erk", {}), "layer1.0")) == "with group/layer1.*, by erk"


# Loss curves


@given(loss_curves, st.floats(0, 1))
def test_as_many_weights_are_kept_as_asked_for_within_the_bounds(found: dict[str, LossCurve], share: float) -> None:
    asked = share * sum(curve.weights for curve in found.values())
    shares = allocate_weights(found, asked)
    least, most = (sum(c.weights * getattr(c, end) for c in found.values()) for end in ("low", "high"))
    kept = sum(curve.weights * shares[layer] for layer, curve in found.items())
    assert kept == pytest.approx(min(max(asked, least), most), rel=1e-6)


def test_the_slope_of_the_curve_is_the_price() -> None:
    curve, step = LossCurve(1000, 1e-3, 2.0, 1e-6, 1.0), 1e-6
    keep = curve.share_at(1e-5)
    fall = curve.scale * ((keep - step) ** -curve.power - (keep + step) ** -curve.power) / (2 * step)
    assert fall / curve.weights == pytest.approx(1e-5, rel=1e-6)
