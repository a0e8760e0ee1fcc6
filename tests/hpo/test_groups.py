import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.hpo.groups import MAX_RATIO, SCALES, Group, GroupedRatio, LossCurve

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
def test_what_layers_get_makes_the_groups_ratio_again(
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
def test_more_of_the_group_is_more_of_every_layer(
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


def test_sensitivity_spares_the_layer_that_suffers() -> None:
    curves = {"a": LossCurve(1000, 1e-4, 2.0, 1e-9, 1.0), "b": LossCurve(1000, 1e-2, 2.0, 1e-9, 1.0)}
    ratios = Group("", "sensitivity", {"a": (10, 100), "b": (10, 100)}, curves).ratios(0.9)
    # the same price: the shares kept differ by the third root of the scales
    assert (1 - ratios["b"]) / (1 - ratios["a"]) == pytest.approx(100 ** (1 / 3), rel=1e-6)


def test_a_part_says_how_it_comes_about() -> None:
    assert str(GroupedRatio(Group("group/layer1.*", "erk", {}), "layer1.0")) == "with group/layer1.*, by erk"
