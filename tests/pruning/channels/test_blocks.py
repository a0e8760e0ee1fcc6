"""Residual blocks leave as a whole, and the network without them computes what the masked one does."""

import copy
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_networks import Residual, make, remove_at_random
from torch import Tensor, nn
from toys import fault, seeded

import tune_prune
from tune_prune.export.compaction import compact, find_removable
from tune_prune.export.exporter import export
from tune_prune.export.formats import formats
from tune_prune.export.resizing import skip_blocks
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.blocks import find_blocks, skip_block, skipped_blocks
from tune_prune.pruning.channels.counting import count_channels
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.slicing import narrowed
from tune_prune.pruning.iterative import State
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.splits import Data, Split

KINDS = ("block", "block+channel")


class Stages(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; blocks 0 and 1 are alike, 2 has no shortcut, and 3 is alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(64, 8)
        shapes = ((8, 8), (8, 8), (8, 6), (6, 6))
        self.blocks = nn.ModuleList(Block(inputs, outputs) for inputs, outputs in shapes)
        self.scores = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.scores(x)


class Block(nn.Module):
    """x + f(x), or f(x) where the sizes differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(inputs, 12), nn.Linear(12, outputs)
        self.is_residual = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(torch.relu(self.up(x)))
        return x + y if self.is_residual else y


def stages() -> Stages:
    torch.manual_seed(0)
    return Stages().eval()


def removed(ratio: float, granularity: str = "block") -> tuple[Stages, dict[str, Tensor], Tensor]:
    model, x = stages(), torch.rand(3, 1, 8, 8)
    return model, remove_at_random(model, find_removable(model, x, granularity).groups, ratio), x


def test_blocks_are_found_by_kind() -> None:
    found = find_blocks(stages(), torch.rand(2, 1, 8, 8))
    assert [(group.name, group.blocks) for group in found.groups] == [
        ("blocks.0", ("blocks.0", "blocks.1")),
        ("blocks.3", ("blocks.3",)),
    ]
    assert list(found.staying) == ["blocks.2"]
    assert count_channels(stages(), found.groups, found.staying).describe() == [
        "blocks.0: 2 blocks of this kind",
        "blocks.2: stays; it does not return its input where its weights are zero, as where its shortcut has weights "
        "of its own",
    ]


def find_fed(model: nn.Module, inputs: Tensor) -> set[str]:
    """The blocks whose input is not zero everywhere; of others it cannot be seen whether they return it."""
    fed = set[str]()
    for at, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, args, at=at: fed.add(f"blocks.{at}") if args[0].any() else None)
    model(inputs)
    return fed


@given(seed=st.integers(0, 100_000))
@example(5814)  # no input but zero reaches its third block
@settings(max_examples=30)
def test_those_without_a_projection_are_blocks(seed: int) -> None:
    model, inputs = make("residual", seed)
    found = {name for group in find_blocks(model, inputs).groups for name in group.blocks}
    # a relu after the sum returns what a relu before has made, and changes what a block without one has
    plain = [f"blocks.{at}" for at, block in enumerate(model.blocks) if isinstance(block.shortcut, nn.Identity)]
    after_relu = [at == 0 or not model.blocks[at - 1].is_before for at in range(len(model.blocks))]
    certain = {name for name in plain if model.get_submodule(name).is_before or after_relu[int(name[7:])]}
    assert certain & find_fed(model, inputs) <= found <= set(plain)


@pytest.mark.parametrize("granularity", KINDS)
@given(seed=st.integers(0, 100_000), ratio=st.floats(0.1, 0.95))
@example(seed=11094, ratio=0.625)  # what a relu after a sum gets is above zero by chance, as long as nothing is removed
@settings(max_examples=30)
def test_the_network_without_them_computes_the_same(granularity: str, seed: int, ratio: float) -> None:
    model, inputs = make("residual", seed)
    groups = find_removable(model, inputs, granularity).groups
    made = remove_at_random(model, groups, ratio, seed)
    blocks, seen = [name for group in groups for name in group.blocks], dict[str, Tensor]()
    for name in blocks:
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    expected, left = model(inputs), sum(kept for kept, _ in masks.kept_counts(made).values())
    with narrowed(model, groups, made) as (small, small_masks):
        torch.testing.assert_close(small(inputs), expected, rtol=1e-4, atol=1e-4)
        assert {k: v.shape for k, v in masks.prunable(small).items()} == {k: v.shape for k, v in small_masks.items()}
        assert sum(mask.numel() for mask in small_masks.values()) == left
    compacted = compact(model, inputs)
    torch.testing.assert_close(compacted(inputs), expected, rtol=1e-4, atol=1e-4)
    gone = [name for name in blocks if not any(bool(one.any()) for one in model.get_submodule(name).parameters())]
    assert len(gone) == sum(round(ratio * group.count) for group in groups if group.blocks)
    # of an input that is zero throughout, it cannot be told what a block returns
    assert sorted(skipped_blocks(compacted)) == sorted(name for name in gone if bool(seen[name].any()))


@pytest.mark.parametrize("granularity", KINDS)
@given(seed=st.integers(0, 100_000))
@settings(max_examples=10)
def test_weights_are_counted_as_masks_count_them(granularity: str, seed: int) -> None:
    model, inputs = make("residual", seed)
    blocks = [group for group in find_groups(model, inputs, granularity) if group.blocks]
    ratios = {group.name: number % (group.count + 1) / group.count * 0.99 for number, group in enumerate(blocks)}
    scores = {label: torch.rand(weight.shape) for label, weight in masks.prunable(model).items()}
    made = removal.remove(model, blocks, masks.dense_masks(model), scores, ratios)
    shares = {group.name: round(ratios[group.name] * group.count) / group.count for group in blocks}
    assert count_channels(model, blocks).compression(shares) == pytest.approx(masks.compression(made))
    assert removal.actual_ratios(model, blocks, made, ratios) == ratios


def test_a_block_and_the_channels_of_the_others_by_hand() -> None:
    model, x = stages(), torch.rand(2, 1, 8, 8)
    groups = find_groups(model, x, "block+channel")
    names = [group.name for group in groups]
    assert names[:2] == ["blocks.0", "blocks.3"]
    assert {"blocks.0.up", "blocks.1.up", "blocks.2.up", "blocks.3.up"} < set(names)
    scores = {label: torch.ones_like(weight) for label, weight in masks.prunable(model).items()}
    scores["blocks.1.up"] *= 0.5  # less than the same layer of the other block
    ratios = {"blocks.0": 0.5, "blocks.1.up": 0.25, "blocks.0.up": 0.25}
    made = removal.remove(model, groups, masks.dense_masks(model), scores, ratios)
    kept = {label: count for label, (count, _) in masks.kept_counts(made).items() if label.startswith("blocks")}
    assert kept == {
        "blocks.0.up": 72, "blocks.0.down": 72, "blocks.1.up": 0, "blocks.1.down": 0,
        "blocks.2.up": 96, "blocks.2.down": 72, "blocks.3.up": 72, "blocks.3.down": 72,
    }  # fmt: skip
    masks.apply(model, made)
    assert not any(bool(one.any()) for one in model.blocks[1].parameters())
    assert removal.actual_ratios(model, groups, made, ratios) == ratios
    counts = count_channels(model, groups)
    assert counts.first_layer("blocks.0") == "blocks.0.up"
    assert counts.compression({"blocks.3": 0.9999}) == pytest.approx(144 / counts.total, rel=1e-3)


def test_all_blocks_may_leave_and_their_ratio_stays_below_one() -> None:
    model, made, x = removed(0.99)
    assert skipped_blocks(compact(model, x)) == {"blocks.0": 0, "blocks.1": 0, "blocks.3": 0}
    groups = find_groups(model, x, "block")
    assert removal.actual_ratios(model, groups, made, {"blocks.0": 0.5}) == {"blocks.0": 0.875}


def test_it_is_trained_without_them() -> None:
    model, made, x = removed(0.6, "block+channel")
    state = State(model, made, groups=find_groups(model, x, "block+channel"))
    small = State(*enter(narrowed(model, state.groups, made)))
    train = Split(torch.rand(64, 1, 8, 8, generator=seeded(1)), torch.randint(4, (64,), generator=seeded(2)))
    plan = Plan({}, {}, final_steps=5, lr=0.1, batch_size=16)
    for one in (state, small):
        iterative.retrain(one, plan, 1, train, seeded(3))
    gone = skipped_blocks(small.model)
    assert len(gone) == 2
    assert not any(bool(one.any()) for name in gone for one in model.get_submodule(name).parameters())
    torch.testing.assert_close(small.model(x), model(x))


def enter(context: AbstractContextManager[tuple[nn.Module, dict[str, Tensor]]]) -> tuple[nn.Module, dict[str, Tensor]]:
    with context as value:
        return copy.deepcopy(value)


@pytest.mark.parametrize("to", ["dense", "pt2", "sparse"])
@pytest.mark.parametrize("granularity", KINDS)
def test_it_is_exported(tmp_path: Path, to: str, granularity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, made, x = removed(0.6, granularity)
    checkpoint.write(tmp_path / "a.safetensors", "test_blocks:Stages", model, made)
    split = Split(torch.rand(20, 1, 8, 8), torch.randint(4, (20,)))
    file = Path("b" + formats[to].ending)
    report = export(Path("a.safetensors"), to, Data(split, split, lambda: split), file, print)
    assert report.agree == 20
    if to == "dense":
        loaded = tune_prune.load(file)
        assert len(skipped_blocks(loaded)) == 2
        torch.testing.assert_close(loaded(x), model(x))


def test_a_file_that_names_blocks_of_another_model(tmp_path: Path) -> None:
    import json

    from safetensors.torch import save_file

    for skipped in (["blocks.9"], "blocks.0", [["blocks.0"]], {"blocks.0": -1}, {"blocks.0": 10**9}, {"blocks.9": 0}):
        header = {"tune_prune": json.dumps({"model": "test_blocks:Stages", "compact": True, "skipped": skipped})}
        save_file(stages().state_dict(), tmp_path / "a.safetensors", header)
        said = fault(lambda: tune_prune.load(tmp_path / "a.safetensors"))
        assert "a.safetensors: the model has no blocks" in said


def test_a_skipped_block_keeps_its_attributes_and_class() -> None:
    model = stages()
    skip_block(model.blocks[0])
    again = copy.deepcopy(model)
    x = torch.rand(2, 8)
    assert again.blocks[0].is_residual
    assert isinstance(again.blocks[0], Block)
    assert torch.equal(again.blocks[0](x), x)
    assert torch.equal(again.blocks[0](x=x), x)
    assert not list(again.blocks[0].parameters())


class Saying(Stages):
    """Its blocks return a tuple: their output, and something else, which only the last layer's caller would look at."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Inside(block, items) for block in self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x)[0]
        return self.scores(x)


class Inside(nn.Module):
    """The output of a block in a tuple of so many items."""

    def __init__(self, block: nn.Module, items: int) -> None:
        super().__init__()
        self.up, self.down, self.is_residual, self.items = block.up, block.down, block.is_residual, items

    def forward(self, x: Tensor) -> tuple[Tensor | None, ...]:
        y = Block.forward(self, x)
        return (y, *[y.sum()] * (self.items - 1))


@pytest.mark.parametrize("items", [1, 3])
def test_blocks_that_return_a_tuple(items: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Saying(items).eval(), torch.rand(3, 1, 8, 8)
    groups = find_removable(model, x, "block").groups
    assert [group.blocks for group in groups] == [("blocks.0", "blocks.1"), ("blocks.3",)]
    assert {group.items for group in groups} == {items}
    made = remove_at_random(model, groups, 0.9)
    small = compact(model, x)
    assert skipped_blocks(small) == {"blocks.0": items, "blocks.1": items, "blocks.3": items}
    torch.testing.assert_close(small(x), model(x))
    other = Saying(items)
    skip_blocks(other, skipped_blocks(small), "a file")
    other.load_state_dict(small.state_dict())
    torch.testing.assert_close(other(x), model(x))
    with narrowed(model, groups, made) as (narrow, _):
        torch.testing.assert_close(narrow(x), model(x))


class Sharing(Stages):
    """Two of the blocks share a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks[1].up = self.blocks[0].up


class InPlace(nn.Module):
    """Its block writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.scores = Writing(), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.block(x.flatten(1)))


class Writing(nn.Module):
    """relu in place, and then x + f(x): without its relu the network would not be the same."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu_()
        return x + self.inner(x)


def test_what_is_no_block() -> None:
    torch.manual_seed(0)
    assert [group.name for group in find_blocks(Sharing(), torch.rand(2, 1, 8, 8)).groups] == ["blocks.3"]
    x = torch.randn(2, 1, 8, 8)
    before = x.clone()
    assert not find_blocks(InPlace(), x).groups
    model = Residual(0)
    weights = copy.deepcopy(model.state_dict())
    find_blocks(model, torch.randn(2, 3, 8, 8))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(before, x) or bool((x >= 0).all())  # the model itself writes into it


def test_a_ratio_of_no_group() -> None:
    model, x = stages(), torch.rand(8, 1, 8, 8)
    train = Split(x, torch.zeros(8, dtype=torch.int64))
    plan = Plan({"blocks.2": 0.5}, {"blocks.2": "mag"}, granularity="block")
    state = iterative.initial_state(model)
    said = fault(lambda: iterative.prune_once(state, plan, 1, train, seeded(0)))
    assert said == "layer blocks.2 names no group that can be removed; known: blocks.0, blocks.3"
