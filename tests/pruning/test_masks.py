import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune
from toys import Conv, Tied, fault, mlp

from tune_prune.pruning import masks
from tune_prune.tasks.models import build

ratios = st.floats(0, 1, exclude_max=True)
steps = st.integers(1, 40).flatmap(
    lambda n: st.lists(st.tuples(st.lists(st.integers(-3, 3), min_size=n, max_size=n), ratios), min_size=1, max_size=5)
)
weights = st.tuples(st.integers(2, 40), st.integers(0, 2**32)).map(
    lambda t: torch.randn(t[0], 7, generator=torch.Generator().manual_seed(t[1]))
)


def removed(mask: Tensor) -> set[int]:
    """Positions of the zeros."""
    return set((mask.flatten() == 0).nonzero().flatten().tolist())


@given(steps)
def test_exact_counts_lowest_first_and_no_return(steps: list[tuple[list[int], float]]) -> None:
    n, most = len(steps[0][0]), 0
    mask = torch.ones(n)
    for scores, ratio in steps:  # other scores every time, with many ties
        before, mask = removed(mask), masks.shrink(mask, torch.tensor(scores, dtype=torch.float), ratio)
        most = max(most, round(ratio * n))
        rest = sorted(set(range(n)) - before, key=lambda i: (scores[i], i))
        assert removed(mask) == before | set(rest[: most - len(before)])
        assert set(mask.tolist()) <= {0.0, 1.0}


@given(st.integers(1, 200), ratios)
def test_of_equal_scores_the_first_go(n: int, ratio: float) -> None:
    mask = masks.shrink(torch.ones(n), torch.full((n,), 0.1), ratio)
    assert removed(mask) == set(range(round(ratio * n)))


@given(weights, ratios)
def test_magnitudes_as_torch_prunes_them(weight: Tensor, ratio: float) -> None:
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight.data = weight
    prune.l1_unstructured(layer, "weight", amount=round(ratio * weight.numel()))
    assert torch.equal(masks.shrink(torch.ones_like(weight), weight.abs(), ratio), layer.weight_mask)


@given(st.integers(0, 1000), ratios)
def test_channels_last_makes_no_difference(seed: int, ratio: float) -> None:
    scores = torch.randint(5, (6, 3, 5, 5), generator=torch.Generator().manual_seed(seed)).float()
    last = scores.to(memory_format=torch.channels_last)
    mask = masks.shrink(torch.ones_like(last), last, ratio)
    assert torch.equal(mask, masks.shrink(torch.ones_like(scores), scores, ratio))
    assert mask.stride() == last.stride()


def test_whole_number_scores() -> None:
    assert masks.shrink(torch.ones(4), torch.tensor([4, 1, 3, 2]), 0.5).tolist() == [1, 0, 1, 0]


def test_the_mask_given_is_not_changed() -> None:
    mask, scores = torch.ones(4), torch.arange(4.0)
    masks.shrink(mask, scores, 0.5)
    half = masks.shrink(mask, scores, 0.5)
    assert masks.shrink(half, scores, 0.25) is not half
    assert mask.tolist() == [1, 1, 1, 1]
    assert scores.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.3, float("nan")])
def test_a_ratio_out_of_bounds(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"ratio must be in \[0, 1\), got {ratio}"):
        masks.count_removed(ratio, 10)


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (mlp, ["2", "4"]),
        (Conv, ["features.0", "features.4", "head"]),
        (Tied, ["first", "head"]),
        (lambda: nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv2d(1, 2, 3), nn.Conv3d(1, 2, 3)), ["1", "2", "3"]),
        (lambda: nn.Sequential(nn.ConvTranspose1d(1, 2, 3), nn.ConvTranspose2d(1, 2, 3)), ["1", "2"]),
        (lambda: nn.MultiheadAttention(4, 2), ["in_proj", "out_proj"]),
        (lambda: nn.Sequential(nn.MultiheadAttention(4, 2)), ["1/in_proj", "1/out_proj"]),
        (lambda: nn.ModuleList([nn.MultiheadAttention(4, 2)]), ["0.in_proj", "0.out_proj"]),
        (lambda: nn.MultiheadAttention(4, 2, kdim=3), ["q_proj", "k_proj", "v_proj", "out_proj"]),
        (
            lambda: nn.TransformerEncoderLayer(4, 2, 8),
            ["self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"],
        ),
        (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.PReLU(), nn.Linear(4, 2)), ["3"]),
        (lambda: nn.Sequential(nn.Embedding(3, 4), nn.EmbeddingBag(3, 4), nn.Bilinear(2, 3, 4)), ["1", "2", "3"]),
        (lambda: nn.Sequential(nn.RNN(4, 2)), ["1/weight_ih_l0", "1/weight_hh_l0"]),
        (lambda: nn.ModuleDict({"a": mlp(), "b": nn.Linear(2, 2)}), ["a.1", "a.3", "b"]),
    ],
)
def test_labels(model: type[nn.Module], labels: list[str]) -> None:
    assert list(masks.prunable(model())) == labels


def test_weights_of_grouped_depthwise_and_transposed_layers_are_those_that_they_have() -> None:
    model = nn.Sequential(
        nn.Conv2d(8, 12, 3, groups=4),  # each filter sees two of the eight channels
        nn.Conv2d(12, 12, 5, groups=12),  # depthwise: each sees one
        nn.ConvTranspose2d(12, 6, 3, groups=2),  # twelve inputs, each to three outputs
        nn.MultiheadAttention(6, 2),
    )
    sizes = {label: weight.numel() for label, weight in masks.prunable(model).items()}
    assert sizes == {"1": 12 * 2 * 9, "2": 12 * 25, "3": 12 * 3 * 9, "4/in_proj": 18 * 6, "4/out_proj": 36}
    found = {label: masks.shrink(mask, torch.rand(mask.shape), 0.5) for label, mask in masks.dense_masks(model).items()}
    masks.apply(model, found)
    assert masks.compression(found) == 0.5
    assert int((model[2].weight == 0).sum()) == 162
    assert int((model[3].in_proj_weight == 0).sum()) == 54


def test_one_activation_used_twice_shifts_no_position() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu, nn.Linear(2, 2))
    assert list(masks.prunable(model)) == ["1", "3", "5"]


def test_layers_inside_a_part_are_counted() -> None:
    part = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    model = nn.Sequential(nn.Linear(2, 3), part, nn.Linear(5, 1))
    assert {label: weight.numel() for label, weight in masks.prunable(model).items()} == {"1": 6, "2/0": 15, "3": 5}


def test_prunable_weights_are_the_models_own() -> None:
    model = mlp()
    assert masks.prunable(model)["4"] is model[3].weight


def test_a_layer_that_is_not_there() -> None:
    masks.require_layers(mlp(), ["4", "2"], "a.conf")
    said = fault(lambda: masks.require_layers(mlp(), ["2", "3"], "a.conf"))
    assert said == "a.conf: layer 3 cannot be pruned; layers that can: 2, 4"


@pytest.mark.parametrize(
    ("ratios", "removed"),
    [
        ({}, 0),
        ({"8": 0.7}, 201_600),
        ({"1": 0.5, "4": 0.7, "8": 0.95, "10": 0.7, "12": 0.5}, 291_231),
    ],
)
def test_compression_of_lenet5(ratios: dict[str, float], removed: int) -> None:
    model = build("lenet5")
    found = masks.dense_masks(model)
    for label, ratio in ratios.items():
        found[label] = masks.shrink(found[label], masks.prunable(model)[label].detach().abs(), ratio)
    counts = masks.kept_counts(found)
    assert sum(kept for kept, _ in counts.values()) == 313_470 - removed
    assert {label: n for label, (_, n) in counts.items()} == {"1": 150, "4": 14400, "8": 288000, "10": 10080, "12": 840}
    assert masks.compression(found) == removed / 313_470
    masks.apply(model, found)
    zeros = sum(int((weight == 0).sum()) for weight in masks.prunable(model).values())
    assert zeros == removed


def test_the_compression_of_torch7_pruner() -> None:
    found = {"8": torch.cat([torch.zeros(201_600), torch.ones(86_400)]), "others": torch.ones(25_470)}
    assert masks.compression(found) == pytest.approx(0.6431237438989, abs=5e-14)


@given(st.integers(1, 300), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_the_actual_ratio_is_the_requested_or_an_earlier_one(n: int, before: float, requested: float) -> None:
    scores = torch.arange(n)
    mask = masks.shrink(masks.shrink(torch.ones(n), scores, before), scores, requested)
    found = masks.actual_ratios({"2": mask, "4": torch.zeros(3)}, {"2": requested})
    assert masks.count_removed(found["2"], n) == int((mask == 0).sum()) if found["2"] < 1 else not mask.any()
    if masks.count_removed(before, n) <= masks.count_removed(requested, n):
        assert found == {"2": requested}


@pytest.mark.parametrize(("compression", "factor"), [(0.0, 1), (0.5, 2), (0.75, 4), (1.0, float("inf"))])
def test_factor(compression: float, factor: float) -> None:
    assert masks.factor(compression) == factor


def test_apply_sets_plus_zero_and_nothing_else(toy_model: nn.Module) -> None:
    found = {
        label: masks.shrink(mask, torch.rand(mask.shape), 0.6) for label, mask in masks.dense_masks(toy_model).items()
    }
    before = copy.deepcopy(toy_model.state_dict())
    layers = masks.prunable(toy_model)
    layers["head" if "head" in layers else "2"].data.mul_(-1).clamp_(max=-1)  # a product would leave -0.0
    expected = {label: weight.detach().clone() for label, weight in layers.items()}
    masks.apply(toy_model, found)
    for label, weight in layers.items():
        zeros = found[label] == 0
        assert torch.equal(weight[zeros].view(torch.int32), torch.zeros_like(weight[zeros]).view(torch.int32))
        assert torch.equal(weight[~zeros], expected[label][~zeros])
    for key, value in toy_model.state_dict().items():
        assert key.endswith("weight") or torch.equal(value, before[key])


def test_dense_masks_keep_everything(toy_model: nn.Module) -> None:
    found = masks.dense_masks(toy_model)
    assert masks.compression(found) == 0
    assert all(not mask.requires_grad for mask in found.values())
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in masks.prunable(toy_model).items()}


@pytest.mark.parametrize("total", [1, 2, 3, 10, 1024, 4_000_001])
def test_the_ratio_of_a_layer_without_weights(total: int) -> None:
    found = {"2": torch.zeros(total)}
    for ratio in (masks.actual_ratios(found, {"2": 0.1})["2"], masks.global_ratio(found, {"2": 0.1})):
        assert 0 < ratio < 1
        assert masks.count_removed(ratio, total) == total
