"""Channels that hang together leave together, and the smaller network computes what the masked one does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import NETWORKS, Attention, make, remove_at_random
from torch import nn
from toys import Conv, mlp, seeded

from tune_prune.export.compaction import compact, find_removable
from tune_prune.pruning import masks
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.counting import count_channels
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.splits import Split


def random_scores(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    return {label: torch.rand(w.shape, generator=seeded(seed)) for label, w in masks.prunable(model).items()}


def remove(model: nn.Module, inputs: torch.Tensor, ratio: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Removes a share of every group that can be removed, by random scores."""
    return remove_at_random(model, find_removable(model, inputs).groups, ratio, seed)


@pytest.mark.parametrize("kind", NETWORKS)
@given(seed=st.integers(0, 100_000), ratio=st.floats(0.1, 0.95))
@settings(max_examples=25)
def test_the_compacted_network_computes_what_the_masked_one_does(kind: str, seed: int, ratio: float) -> None:
    model, inputs = make(kind, seed)
    made = remove(model, inputs, ratio, seed)
    expected = model(inputs)
    smaller = compact(model, inputs)
    assert (smaller(inputs) - expected).abs().max() <= 1e-4 * expected.abs().max()
    left = sum(weight.numel() for weight in masks.prunable(smaller).values())
    assert left == sum(kept for kept, _ in masks.kept_counts(made).values())  # nothing but what is kept


@pytest.mark.parametrize("kind", NETWORKS)
@given(seed=st.integers(0, 100_000))
@settings(max_examples=20)
def test_what_is_removed_gets_no_gradient(kind: str, seed: int) -> None:
    model, inputs = make(kind, seed)
    remove(model, inputs, 0.6, seed)
    zeros = {name: value == 0 for name, value in model.named_parameters() if value.dim() == 1}
    model(inputs).square().sum().backward()
    for name, value in model.named_parameters():
        if name in zeros and value.grad is not None:
            assert not value.grad[zeros[name]].any(), name


@given(seed=st.integers(0, 100_000), ratios=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)))
@settings(max_examples=20)
def test_masks_only_lose_more(seed: int, ratios: tuple[float, float]) -> None:
    model, inputs = make("images", seed)
    groups, before = find_groups(model, inputs), masks.dense_masks(model)
    for number, ratio in enumerate(sorted(ratios)):
        after = removal.remove(model, groups, before, random_scores(model, number), {one.name: ratio for one in groups})
        assert all(bool((after[label] <= before[label]).all()) for label in before)
        before = after


def test_the_numbers_that_are_left_by_hand() -> None:
    assert [removal.count_left(10, ratio) for ratio in (0, 0.04, 0.5, 0.94, 0.99)] == [10, 10, 5, 1, 1]
    assert [removal.count_left(64, ratio, 8) for ratio in (0, 0.1, 0.5, 0.51, 0.99)] == [64, 64, 32, 32, 8]
    assert removal.count_left(12, 0.1, 8) == 12  # the next multiple is more than there are
    assert [removal.count_left(64, ratio, 8, 20) for ratio in (0.5, 0.8, 0.99)] == [32, 24, 24]
    assert [removal.count_left(64, ratio, 1, 20) for ratio in (0.5, 0.8, 0.99)] == [32, 20, 20]


def test_the_ratio_that_holds_is_recorded_where_a_least_width_left_more() -> None:
    model, x = Conv().eval(), torch.randn(2, 1, 8, 8)
    groups, asked = find_groups(model, x), {"features.0": 0.5, "features.4": 0.9}
    for multiple_of, min_width, held in (
        (1, 1, {"features.0": 0.5, "features.4": 0.9}),
        (4, 1, {"features.0": 0.0, "features.4": 0.5}),
        (1, 3, {"features.0": 0.25, "features.4": 0.625}),
    ):
        before = masks.dense_masks(model)
        made = removal.remove(model, groups, before, random_scores(model), asked, multiple_of, min_width)
        assert removal.actual_ratios(model, groups, made, asked) == held
        again = removal.remove(model, groups, before, random_scores(model), held)  # without a multiple, the same
        assert all(torch.equal(made[label], again[label]) for label in made)


def test_groups_of_a_small_network_by_hand() -> None:
    model = Conv().eval()
    groups = find_groups(model, torch.randn(2, 1, 8, 8))
    members = {one.name: {(m.tensor, m.axis): (m.role, m.channels.tolist()) for m in one.members} for one in groups}
    first, second = [0, 1, 2, 3], [*range(8)]
    norm = [f"features.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    assert members == {
        "features.0": {
            ("features.0.weight", 0): ("output", first),
            ("features.0.bias", 0): ("other", first),
            **{(name, 0): ("other", first) for name in norm},
            ("features.4.weight", 1): ("input", first),
        },
        "features.4": {
            ("features.4.weight", 0): ("output", second),
            ("features.4.bias", 0): ("other", second),
            ("head.weight", 1): ("input", [channel for channel in second for _ in range(4)]),
        },
    }


def test_weights_are_counted_as_masks_count_them() -> None:
    model, inputs = make("images", 7)
    groups, ratios = find_groups(model, inputs), {}
    for number, group in enumerate(groups):
        gone = number % group.count
        ratios[group.name] = gone / group.count
    made = removal.remove(model, groups, masks.dense_masks(model), random_scores(model), ratios)
    assert count_channels(model, groups).compression(ratios) == pytest.approx(masks.compression(made))
    assert removal.actual_ratios(model, groups, made, ratios) == ratios


@pytest.mark.parametrize(("multiple_of", "min_width"), [(1, 1), (2, 1), (1, 3), (4, 3), (2, 5)])
def test_what_ratios_are_planned_to_leave_is_what_they_leave(multiple_of: int, min_width: int) -> None:
    model, inputs = make("images", 7)
    groups = find_groups(model, inputs)
    counts = count_channels(model, groups)
    for ratio in (0.0, 0.3, 0.55, 0.7, 0.95):
        ratios = {group.name: ratio for group in groups}
        made = removal.remove(
            model, groups, masks.dense_masks(model), random_scores(model), ratios, multiple_of, min_width
        )
        assert counts.compression(ratios, multiple_of, min_width) == pytest.approx(masks.compression(made))


@pytest.mark.parametrize("change", ["nothing", "rotation", "norms"])
def test_a_heads_queries_keys_and_values_leave_together(change: str) -> None:
    class Model(nn.Module):
        def __init__(self, *, is_fused: bool, shared: int) -> None:
            super().__init__()
            self.attention = Attention(8, 4, shared, is_fused=is_fused, change=change)
            self.scores = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scores(self.attention(x))

    for is_fused, shared, expected in ((True, 1, ("qkv", 4)), (False, 1, ("q", 4)), (False, 2, ("q", 2))):
        model = Model(is_fused=is_fused, shared=shared).eval()
        found = {group.name: group.count for group in find_groups(model, torch.randn(2, 5, 8))}
        assert found == {f"attention.{expected[0]}": expected[1], "attention.out": 8}


def test_each_layer_keeps_a_channel() -> None:
    model, inputs = make(
        "images", 777_202
    )  # two layers whose channels hang together, and not each with one of the other
    made = remove(model, inputs, 0.75, 202)
    assert all(kept for kept, _ in masks.kept_counts(made).values())
    expected = model(inputs)
    smaller = compact(model, inputs)
    torch.testing.assert_close(smaller(inputs), expected)
    assert all(len(weight) for weight in masks.prunable(smaller).values())
    left = sum(weight.numel() for weight in masks.prunable(smaller).values())
    assert left == sum(kept for kept, _ in masks.kept_counts(made).values())


def test_padding_of_an_embedding_does_not_decide() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.scores = nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 3)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return self.scores(self.table(words).mean(1))

    model, words = Words().eval(), torch.randint(1, 20, (2, 5))
    with torch.no_grad():
        model.table.weight[:, [1, 4, 6]] *= 0.01
        model.scores.weight[:, [1, 4, 6]] *= 0.01
    groups, train = find_groups(model, words), Split(torch.randint(1, 20, (8, 5)), torch.zeros(8, dtype=torch.int64))
    plan = Plan({groups[0].name: 3 / 8}, {groups[0].name: "mag"}, granularity="channel")
    context = Context(model, train, seeded(0))
    made = removal.prune(context, groups, masks.dense_masks(model), plan, plan.ratios)
    assert (made["scores"][0] == 0).nonzero().flatten().tolist() == [1, 4, 6]


def test_the_score_of_a_channel_by_hand() -> None:
    model = mlp().eval()
    (group,) = find_groups(model, torch.randn(2, 1, 8, 8))
    scores = {"2": torch.zeros(16, 64), "4": torch.zeros(4, 16)}
    scores["2"][0, 3], scores["2"][1, 5], scores["4"][2, 1] = 1.0, 3.0, 0.5
    by_name = {"1.weight": scores["2"], "3.weight": scores["4"]}
    ones = {name: torch.ones_like(value) for name, value in by_name.items()}
    found = removal.score_channels(group, by_name, ones)
    assert found.tolist()[:3] == [0.125, 0.375 + 0.5, 0.0]  # half of 1/4; half of 3/4 and half of all
