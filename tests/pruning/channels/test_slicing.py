"""A network without the channels that are gone computes and learns what the masked one does, and is put back."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import NETWORKS, make, remove_at_random
from toys import seeded

from tune_prune.pruning import iterative, masks
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.slicing import narrowed
from tune_prune.pruning.iterative import State
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.splits import Split


def pruned(kind: str, seed: int, ratio: float) -> tuple[State, torch.Tensor]:
    model, inputs = make(kind, seed)
    groups = find_groups(model, inputs)
    return State(model, remove_at_random(model, groups, ratio, seed), groups=groups), inputs


@pytest.mark.parametrize("kind", NETWORKS)
@given(seed=st.integers(0, 100_000), ratio=st.floats(0.1, 0.9))
@settings(max_examples=20)
def test_the_narrow_network_computes_the_same_and_is_put_back(kind: str, seed: int, ratio: float) -> None:
    state, inputs = pruned(kind, seed, ratio)
    expected, before = state.model(inputs), copy.deepcopy(state.model.state_dict())
    weights = {label: weight.detach().clone() for label, weight in masks.prunable(state.model).items()}
    with narrowed(state.model, state.groups, state.masks) as (small, small_masks):
        torch.testing.assert_close(small(inputs), expected, rtol=1e-4, atol=1e-4)
        assert all(bool(mask.all()) for mask in small_masks.values())
        assert {k: v.shape for k, v in masks.prunable(small).items()} == {k: v.shape for k, v in small_masks.items()}
        with torch.no_grad():
            for value in small.parameters():
                value += 1
    for name, value in state.model.named_parameters():
        changed = value - before[name]
        assert bool(((changed - 1).abs().le(1e-5) | changed.eq(0)).all())  # what is gone stays as it was
    masks.apply(state.model, state.masks)
    kept = {label: mask.bool() for label, mask in state.masks.items()}
    for label, weight in masks.prunable(state.model).items():
        assert torch.allclose(weight[kept[label]], weights[label][kept[label]] + 1)


@pytest.mark.parametrize("kind", ["images", "sequences"])
@given(seed=st.integers(0, 100_000))
@settings(max_examples=5)
def test_it_learns_what_the_masked_network_learns(kind: str, seed: int) -> None:
    state, inputs = pruned(kind, seed, 0.5)
    drawn = torch.randn(64, *inputs.shape[1:], generator=seeded(1))
    train = Split(drawn, torch.randint(4, (64,), generator=seeded(2)))
    plan = Plan({}, {}, final_steps=3, lr=0.01, batch_size=16, weight_decay=0.01)
    masked = State(copy.deepcopy(state.model), state.masks)
    for one in (state, masked):
        iterative.retrain(one, plan, 1, train, seeded(3))
    for (name, value), other in zip(state.model.state_dict().items(), masked.model.state_dict().values(), strict=True):
        if "running" not in name:  # those of channels that are gone are measured where they are
            torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-3, msg=name)


def test_a_model_that_lost_no_channel_is_not_copied() -> None:
    model, inputs = make("images", 3)
    with narrowed(model, find_groups(model, inputs), masks.dense_masks(model)) as (small, _):
        assert small is model
