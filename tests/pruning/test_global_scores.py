"""Scores that are compared over all layers: magnitudes of weights, and multiples of a mean where whole units leave."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import NETWORKS, make, remove_at_random
from torch import nn
from toys import Conv, mlp, seeded

from tune_prune.pruning import masks
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.removal import find_kept, join_by_name
from tune_prune.pruning.global_scores import score_globally
from tune_prune.pruning.granularity import remove


@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_a_weight_has_its_magnitude_and_one_that_is_gone_none(granularity: str) -> None:
    model, made = mlp(), masks.dense_masks(mlp())
    made["2"][3:5] = 0
    found = score_globally(model, made, granularity, ["2", "4"])
    assert list(found) == ["2", "4"]
    weight = masks.prunable(model)["2"].abs()
    assert torch.equal(found["2"].view(16, 64)[:3], weight[:3])
    assert not found["2"].view(16, 64)[3:5].any()


def test_filters_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -3.0], [4.0, 4.0], [5.0, 5.0]]))
    dense = {"1": torch.ones(3, 2)}
    assert score_globally(model, dense, "filter", ["1"])["1"].tolist() == pytest.approx([6 / 11, 12 / 11, 15 / 11])
    dense["1"][2] = 0
    assert score_globally(model, dense, "neuron", ["1"])["1"].tolist() == pytest.approx([2 / 3, 4 / 3, 0])


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), ratio=st.floats(0.1, 0.8))
@settings(max_examples=20)
def test_the_scale_of_a_layer_does_not_matter_where_units_leave(seed: int, scale: float, ratio: float) -> None:
    torch.manual_seed(seed)
    model = Conv()
    dense = masks.dense_masks(model)
    drawn = {label: torch.rand(mask.shape, generator=seeded(seed)) for label, mask in dense.items()}
    made = remove(dense, drawn, ratio, "filter")
    before = score_globally(model, made, "filter", [*made])
    with torch.no_grad():
        model.features[4].weight.mul_(scale)
    after = score_globally(model, made, "filter", [*made])
    for label, scores in before.items():
        torch.testing.assert_close(after[label], scores, rtol=1e-4, atol=1e-6)
        left = made[label].flatten(1).any(1)
        assert float(scores.sum()) == pytest.approx(int(left.sum()), rel=1e-4)
        assert bool((scores[~left] == 0).all())


@pytest.mark.parametrize("kind", NETWORKS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
def test_the_channels_that_are_left_have_a_mean_of_one(kind: str, seed: int) -> None:
    model, inputs = make(kind, seed)
    groups = find_groups(model, inputs)
    made = remove_at_random(model, groups, 0.5, seed)
    found = score_globally(model, made, "channel", [group.name for group in groups], groups)
    assert list(found) == [group.name for group in groups]
    for group in groups:
        kept, scores = find_kept(group, join_by_name(model, made)), found[group.name]
        assert float(scores[kept].mean()) == pytest.approx(1, rel=1e-6)
        assert not scores[~kept].any()


def test_of_a_mixture_weights_count_that_channels_leave() -> None:
    model, inputs = make("images", 3)
    groups = find_groups(model, inputs)
    made = remove_at_random(model, groups, 0.5, 3)
    found = score_globally(model, made, "channel+weight", [groups[0].name, "weights/scores"], groups)
    assert list(found) == [groups[0].name, "weights/scores"]
    left = masks.prunable(model)["scores"].abs()[made["scores"] != 0]
    assert torch.equal(found["weights/scores"], left.detach())
    made["scores"][0] = 0  # which is a row: the columns of channels are left, and hold a zero each
    after = score_globally(model, made, "channel+weight", ["weights/scores"], groups)["weights/scores"]
    assert len(after) == len(left)
    assert int((after == 0).sum()) == len(left) // 4


def test_units_without_any_weight_are_alike() -> None:
    model = mlp()
    with torch.no_grad():
        model[3].weight.zero_()
    assert score_globally(model, masks.dense_masks(model), "filter", ["4"])["4"].tolist() == [1.0] * 4
