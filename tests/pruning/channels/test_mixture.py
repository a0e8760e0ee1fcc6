"""Channels and single weights together: what leaves, what is counted, and that the small network computes the same."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import NETWORKS, make, remove_at_random
from torch import Tensor, nn
from toys import fault, seeded

import tune_prune
from tune_prune.export.compaction import compact
from tune_prune.export.exporter import export
from tune_prune.export.formats import formats
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.channels import mixture, removal
from tune_prune.pruning.channels.counting import count_channels
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.removal import find_kept, join_by_name
from tune_prune.pruning.channels.slicing import narrowed
from tune_prune.pruning.granularity import MIXTURES
from tune_prune.pruning.iterative import State
from tune_prune.pruning.plan import WEIGHTS, Plan
from tune_prune.tasks.splits import Data, Split


class Small(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; 8 hidden channels, which one layer computes and another reads."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.scores = nn.Linear(64, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(torch.relu(self.hidden(x.flatten(1))))


def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


def split(count: int) -> Split:
    return Split(torch.rand(count, 1, 8, 8, generator=seeded(1)), torch.randint(4, (count,), generator=seeded(2)))


def prune(model: nn.Module, ratios: dict[str, float], granularity: str, **how: object) -> State:
    """A state after all rounds of a plan by magnitude."""
    plan = Plan(ratios, dict.fromkeys(ratios, "mag"), granularity=granularity, **how)
    state = iterative.initial_state(model)
    for round_ in range(1, plan.rounds + 1):
        iterative.prune_once(state, plan, round_, split(16), seeded(0))
    return state


def mixed(kind: str, seed: int, ratio: float, share: float, granularity: str) -> tuple[State, Tensor]:
    """A random network, of whose groups and layers random parts were removed."""
    model, inputs = make(kind, seed)
    groups = find_groups(model, inputs)
    made = remove_at_random(model, groups, ratio, seed)
    scores = {label: torch.rand(mask.shape, generator=seeded(seed)) for label, mask in made.items()}
    two_dims = [label for label, mask in made.items() if mask.dim() > 1]
    made |= mixture.remove_weights(model, groups, made, scores, dict.fromkeys(two_dims, share), granularity)
    masks.apply(model, made)
    return State(model, made, groups=groups), inputs


@pytest.mark.parametrize("granularity", MIXTURES.values())
@pytest.mark.parametrize("kind", NETWORKS)
@given(seed=st.integers(0, 100_000), ratio=st.floats(0, 0.9), share=st.floats(0, 0.99))
@settings(max_examples=12)
def test_the_network_without_the_channels_computes_the_same(
    kind: str, granularity: str, seed: int, ratio: float, share: float
) -> None:
    channels, _ = mixed(kind, seed, ratio, 0.0, granularity)
    state, inputs = mixed(kind, seed, ratio, share, granularity)
    kept, of_channels = (
        [find_kept(group, join_by_name(one.model, one.masks)) for group in one.groups] for one in (state, channels)
    )
    assert all(map(torch.equal, kept, of_channels))  # channels leave by their own ratios alone
    expected = state.model(inputs)
    with narrowed(state.model, state.groups, state.masks) as (network, own_masks):
        torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-4)
        assert {k: v.shape for k, v in masks.prunable(network).items()} == {k: v.shape for k, v in own_masks.items()}
        removed = {label: int((mask == 0).sum()) for label, mask in own_masks.items()}
        totals = {label: mask.numel() for label, mask in own_masks.items()}
        assert masks.find_damaged(network, own_masks) is None
    given_back = sum(masks.count_removed(share, totals[label]) - removed[label] for label in totals)
    if granularity == "weight":
        assert 0 <= given_back <= sum(int(one.sum()) for one in kept)
    torch.testing.assert_close(compact(state.model, inputs)(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rounds", [1, 3])
@given(seed=st.integers(0, 100_000), ratio=st.floats(0, 0.8), share=st.floats(0.5, 0.95))
@settings(max_examples=15)
def test_a_network_without_channels_has_two_zeros_in_every_four(
    rounds: int, seed: int, ratio: float, share: float
) -> None:
    model, inputs = make("images", seed)
    groups, made = find_groups(model, inputs), masks.dense_masks(model)
    for round_ in range(1, rounds + 1):
        before, generator, part = made, seeded(seed + round_), round_ / rounds
        scores = {label: torch.rand(mask.shape, generator=generator) for label, mask in made.items()}
        made = removal.remove(model, groups, made, scores, {group.name: ratio * part for group in groups})
        made |= mixture.remove_weights(model, groups, made, scores, dict.fromkeys(made, share * part), "2:4")
        assert all(bool((mask <= before[label]).all()) for label, mask in made.items())  # what is gone stays gone
    with narrowed(model, groups, made) as (_, own_masks):
        for mask in own_masks.values():
            fours = torch.nn.functional.pad(mask.movedim(1, -1), (0, -mask.shape[1] % 4)).unflatten(-1, (-1, 4))
            assert int(fours.count_nonzero(-1).max()) <= 2


def test_counts_by_hand() -> None:
    ratios = {"hidden": 0.5, WEIGHTS + "hidden": 0.75, WEIGHTS + "scores": 0.25}
    state = prune(small(), ratios, "channel+weight")
    # 4 of 8 channels stay: 4 * 64 and 4 * 4 weights, of which 64 and 12 are left
    assert masks.kept_counts(state.masks) == {"hidden": (64, 512), "scores": (12, 32)}
    assert masks.compression(state.masks) == (544 - 76) / 544
    plan = Plan(ratios, dict.fromkeys(ratios, "mag"), granularity="channel+weight")
    assert mixture.actual_ratios(state.model, state.groups, state.masks, ratios, plan) == ratios
    counts = count_channels(state.model, state.groups)
    assert counts.compression(ratios) == masks.compression(state.masks)
    with narrowed(state.model, state.groups, state.masks) as (network, own_masks):
        assert network.hidden.weight.shape == (4, 64)
        assert masks.kept_counts(own_masks) == {"hidden": (64, 256), "scores": (12, 16)}


def test_a_channel_that_stays_keeps_its_best_weight() -> None:
    state = prune(small(), {"hidden": 0.25, WEIGHTS + "hidden": 0.999, WEIGHTS + "scores": 0.999}, "channel+weight")
    assert masks.kept_counts(state.masks) == {"hidden": (6, 512), "scores": (0, 32)}
    dense = small().hidden.weight.abs()
    left = state.masks["hidden"].bool()
    assert torch.equal(left.any(1), (state.masks["hidden"].sum(1) == 1))
    assert all(bool(dense[row, left[row]] == dense[row].max()) for row in left.any(1).nonzero().flatten())
    requested = {"hidden": 0.25, WEIGHTS + "hidden": 0.999, WEIGHTS + "scores": 0.999}
    plan = Plan(requested, {}, granularity="channel+weight")
    found = mixture.actual_ratios(state.model, state.groups, state.masks, requested, plan)
    assert found == {"hidden": 0.25, WEIGHTS + "hidden": 378 / 384, WEIGHTS + "scores": 0.999}


def test_weights_removed_beyond_their_ratio_stay_and_the_ratio_says_so() -> None:
    model, ratios = small(), {"hidden": 0.5, WEIGHTS + "scores": 0.5}
    groups, made = find_groups(model, split(2).inputs), masks.dense_masks(model)
    made["hidden"][:4] = made["scores"][:, :4] = 0  # channels that are gone
    made["scores"][:, 4:] = torch.tensor([1, 0, 0, 0])  # 12 of the 16 weights of those that stay
    scores = {label: torch.ones_like(mask) for label, mask in made.items()}
    again = mixture.remove_weights(model, groups, made, scores, {"scores": 0.5}, "weight")
    assert torch.equal(again["scores"], made["scores"])
    plan = Plan(ratios, {}, granularity="channel+weight")
    found = mixture.actual_ratios(model, groups, made, ratios, plan)
    assert found == {"hidden": 0.5, WEIGHTS + "scores": 12 / 16}


def test_it_learns_what_the_masked_network_learns() -> None:
    state = prune(small(), {"hidden": 0.5, WEIGHTS + "hidden": 0.9, WEIGHTS + "scores": 0.5}, "channel+weight")
    masked = State(copy.deepcopy(state.model), state.masks)
    plan = Plan({}, {}, final_steps=5, lr=0.1, batch_size=16, weight_decay=0.01)
    for one in (state, masked):
        iterative.retrain(one, plan, 1, split(64), seeded(3))
    for (name, value), other in zip(state.model.state_dict().items(), masked.model.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5, msg=name)
    assert masks.find_damaged(state.model, state.masks) is None
    assert int(state.model.hidden.weight.count_nonzero()) == round(256 * 0.1)


def test_rounds_remove_more_and_give_nothing_back() -> None:
    plan = Plan(
        {"hidden": 0.5, WEIGHTS + "hidden": 0.8, WEIGHTS + "scores": 0.5},
        {"hidden": "mag", WEIGHTS + "hidden": "taylor1", WEIGHTS + "scores": "random"},
        rounds=4, steps=3, final_steps=3, granularity="channel+weight",
    )  # fmt: skip
    state, before = iterative.initial_state(small()), masks.dense_masks(small())
    for point in iterative.prune(state, plan, split(64), split(64), seed=0):
        assert all(bool((mask <= before[label]).all()) for label, mask in state.masks.items())
        before = {label: mask.clone() for label, mask in state.masks.items()}
        assert point.ratios.keys() == plan.ratios.keys()
    assert point.ratios == plan.ratios


@pytest.mark.parametrize("to", ["dense", "pt2", "onnx", "sparse"])
@pytest.mark.parametrize("granularity", MIXTURES)
def test_it_is_exported(tmp_path: Path, to: str, granularity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = prune(small(), {"hidden": 0.5, WEIGHTS + "hidden": 0.5, WEIGHTS + "scores": 0.5}, granularity)
    checkpoint.write(tmp_path / "a.safetensors", "test_mixture:Small", state.model, state.masks)
    test = split(20)
    file = Path("b" + formats[to].ending)
    report = export(Path("a.safetensors"), to, Data(test, test, lambda: test), file, print)
    assert report.agree == 20
    assert report.kept == 128 + 8
    if to == "dense":
        loaded = tune_prune.load(file)
        assert loaded.hidden.weight.shape == (4, 64)
        assert int(loaded.hidden.weight.count_nonzero()) == 128
        torch.testing.assert_close(loaded(test.inputs), state.model(test.inputs))


def test_a_ratio_of_no_layer() -> None:
    assert fault(lambda: prune(small(), {WEIGHTS + "others": 0.5}, "channel+weight")) == (
        "weights/others names no layer that can be pruned; known: hidden, scores"
    )
    assert fault(lambda: prune(small(), {WEIGHTS + "hidden": 0.5}, "channel")) == (
        "layer weights/hidden names no group that can be removed; known: hidden"
    )
