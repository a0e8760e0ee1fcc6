import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tune_prune.pruning import granularity, masks
from tune_prune.pruning.granularity import granularities, remove, shrink

SHAPES = [(6, 4), (8, 3, 5, 5), (5, 7), (4, 1, 3, 3), (10, 12)]
ratios = st.floats(0, 1, exclude_max=True)


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    """Scores with many ties."""
    return torch.randint(9, shape, generator=torch.Generator().manual_seed(seed)).float()


def count(mask: Tensor) -> int:
    return int((mask == 0).sum())


@pytest.mark.parametrize("name", granularities)
@given(shape=st.sampled_from(SHAPES), steps=st.lists(st.tuples(ratios, st.integers(0, 2**32)), max_size=4))
def test_masks_only_shrink_to_the_nearest_count(name: str, shape: tuple[int, ...], steps: list) -> None:
    mask = torch.ones(shape)
    for ratio, seed in steps:
        scores = drawn(shape, seed)
        size = granularities[name](scores, mask).size
        before, mask = mask, shrink(mask, scores, ratio, name)
        assert (mask <= before).all()
        target = max(count(before), masks.count_removed(ratio, mask.numel()))
        within = size == 1 or count(mask) == mask.numel() - size  # each layer keeps one unit
        assert abs(count(mask) - target) <= (0 if size == 1 else mask.numel() if within else size / 2)


@given(st.sampled_from(SHAPES), ratios, st.integers(0, 2**32))
def test_weights_of_one_layer_as_they_are_pruned_by_themselves(shape: tuple[int, ...], ratio: float, seed: int) -> None:
    scores, before = drawn(shape, seed), (drawn(shape, seed + 1) > 2).float()
    expected = masks.shrink(before, scores, ratio)
    assert torch.equal(remove({"a": before}, {"a": scores}, ratio)["a"], expected)


@given(ratios, st.integers(0, 2**32))
def test_layers_as_one_are_one_long_layer(ratio: float, seed: int) -> None:
    scores = {str(shape): drawn(shape, seed + at) for at, shape in enumerate(SHAPES)}
    found = remove({k: torch.ones_like(v) for k, v in scores.items()}, scores, ratio)
    long = torch.cat([score.flatten() for score in scores.values()])
    expected = masks.shrink(torch.ones_like(long), long, ratio)
    assert torch.equal(torch.cat([mask.flatten() for mask in found.values()]), expected)


@pytest.mark.parametrize("name", ["filter", "neuron"])
@given(shape=st.sampled_from(SHAPES), ratio=ratios, seed=st.integers(0, 2**32))
def test_filters_go_whole_and_one_stays(name: str, shape: tuple[int, ...], ratio: float, seed: int) -> None:
    scores = drawn(shape, seed)
    kept = shrink(torch.ones(shape), scores, ratio, name).flatten(1)
    assert (kept == kept[:, :1]).all()
    stays, sums = kept[:, 0] == 1, scores.flatten(1).sum(1)
    assert stays.any()
    assert stays.all() or sums[stays].min() >= sums[~stays].max()


def test_filters_of_layers_as_one_go_by_their_mean() -> None:
    scores = {"large": torch.tensor([[2.0] * 4, [1.0] * 4, [9.0] * 4]), "small": torch.tensor([[3.0], [1.5], [9.0]])}
    found = remove({k: torch.ones_like(v) for k, v in scores.items()}, scores, 5 / 15, "filter")
    assert {label: mask[:, 0].tolist() for label, mask in found.items()} == {"large": [1, 0, 1], "small": [1, 0, 1]}


@given(st.sampled_from([(6, 8), (3, 12), (4, 8, 3, 3)]), st.integers(0, 2**32))
def test_two_of_four_at_a_half(shape: tuple[int, ...], seed: int) -> None:
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    mask = shrink(torch.ones(shape), scores, 0.5, "2:4").movedim(1, -1)
    fours = mask.unflatten(-1, (-1, 4))
    assert (fours.sum(-1) == 2).all()
    # the two that stay are the two highest of their four
    best = scores.movedim(1, -1).unflatten(-1, (-1, 4)).topk(2).values.sum(-1)
    assert torch.allclose((scores.movedim(1, -1) * mask).unflatten(-1, (-1, 4)).sum(-1), best)


@given(st.sampled_from(SHAPES), st.floats(0.5, 1, exclude_max=True), st.integers(0, 2**32))
def test_beyond_a_half_every_four_still_holds_two_zeros(shape: tuple[int, ...], ratio: float, seed: int) -> None:
    mask = shrink(torch.ones(shape), drawn(shape, seed), ratio, "2:4").movedim(1, -1)
    zeros = torch.nn.functional.pad(mask, (0, -shape[1] % 4)).unflatten(-1, (-1, 4)) == 0
    assert (zeros.sum(-1) >= 2).all()


@pytest.mark.parametrize("name", granularities)
@given(ratio=ratios, seed=st.integers(0, 2**32))
def test_a_transposed_convolution_is_turned_around(name: str, ratio: float, seed: int) -> None:
    scores = drawn((5, 8, 3, 3), seed)  # [inputs, outputs, ...]
    expected = shrink(torch.ones(8, 5, 3, 3), scores.transpose(0, 1).contiguous(), ratio, name).transpose(0, 1)
    found = shrink(torch.ones_like(scores), scores, ratio, name, outputs_axis=1)
    if name == "weight":  # has no direction, but for the order of ties
        assert count(found) == count(expected)
    else:
        assert torch.equal(found, expected)


def test_a_filter_that_is_gone_in_part_counts_what_it_has_left() -> None:
    before = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
    scores = torch.tensor([[1.0] * 4, [2] * 4, [3] * 4])
    assert count(shrink(before, scores, 4 / 12, "filter")) == 4
    assert granularity.outputs(scores, before).score.tolist() == [0.25, 2, 3]


@given(st.sampled_from(list(granularities)), st.floats(0, 0.9999), st.integers(0, 100))
def test_layers_as_one_keep_a_weight_each(name: str, ratio: float, seed: int) -> None:
    shapes = {"a": (40, 8), "b": (2, 4), "c": (1, 1)}
    before = {label: torch.ones(shape) for label, shape in shapes.items()}
    scores = {label: drawn(shape, seed) * (1 if label == "a" else 1e-3) for label, shape in shapes.items()}
    found = remove(before, scores, ratio, name, keep_one=True)
    kept = {label: count(1 - mask) for label, mask in found.items()}
    assert all(kept.values())
    if name == "weight":
        assert sum(kept.values()) == max(329 - round(ratio * 329), 3)
        assert all(scores[label][mask > 0].max() == scores[label].max() for label, mask in found.items())
