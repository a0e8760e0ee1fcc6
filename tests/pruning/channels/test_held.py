"""Numbers of channels that a model's code holds change with the channels, and no others do."""

import copy
import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import remove_at_random
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from toys import fault, seeded

import tune_prune
from tune_prune.export.compaction import compact, find_removable
from tune_prune.export.exporter import export
from tune_prune.export.formats import formats
from tune_prune.export.resizing import find_changed_numbers
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.slicing import list_numbers, narrowed, remove_channels
from tune_prune.pruning.iterative import State
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.outputs import ROUNDING, differ
from tune_prune.tasks.splits import Data, Split

SIZE = 5
"""The width of a head."""


class Heads(nn.Module):
    """An attention that holds the number of its heads and their width in all, as those of timm do."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, SIZE, heads * SIZE
        self.places = heads  # as large, and no number of heads
        self.qkv, self.out = nn.Linear(width, 3 * self.attn_dim), nn.Linear(self.attn_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(rows, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(rows, tokens, self.attn_dim)) / self.places


class Packed(nn.Module):
    """A layer whose three parts its code separates by a number, as GPT-2's does, or by a tuple of them."""

    def __init__(self, width: int, inner: int, *, by_tuple: bool) -> None:
        super().__init__()
        self.sizes = (inner, inner, inner) if by_tuple else inner
        self.first, self.last = nn.Linear(width, 3 * inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.first(x).split(self.sizes, -1)
        return self.last(torch.tanh(one) * two + three)


class Partial(nn.Module):
    """A layer that works on some of its channels alone, as FasterNet's; the sizes are numbers, or a tuple."""

    def __init__(self, width: int, part: int, *, by_tuple: bool) -> None:
        super().__init__()
        self.sizes, self.part, self.rest = (part, width - part) if by_tuple else (), part, width - part
        self.inner = nn.Linear(part, part)

    def forward(self, x: Tensor) -> Tensor:
        part, rest = x.split(self.sizes or (self.part, self.rest), -1)
        return torch.cat([torch.tanh(self.inner(part)), rest], -1)


class Caching(nn.Module):
    """An attention of two heads that keeps its biases, one a head, between calls in evaluation mode, as LeViT's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads, self.kept = 2, dict[str, Tensor]()
        self.qkv, self.out = nn.Linear(width, 6 * SIZE), nn.Linear(2 * SIZE, width)
        self.biases = nn.Parameter(torch.randn(2, 3, 3))

    def train(self, mode: bool = True) -> "Caching":
        if mode:
            self.kept = {}
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).view(*x.shape[:2], self.num_heads, 3 * SIZE).transpose(1, 2)
        q, k, v = parts.split([SIZE, SIZE, SIZE], -1)
        biases = self.biases if self.training else self.kept.setdefault("biases", self.biases)
        mixed = (q @ k.transpose(-1, -2) + biases).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class Held(nn.Module):
    """[n, 12] -> [n, 4]: three tokens, then residual layers; its code holds the width, the heads and inner widths."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.hidden_dim, layers = draw.choice((6, 7, 15)), []
        self.stem, self.norm = nn.Linear(4, self.hidden_dim), nn.LayerNorm(self.hidden_dim)
        for _ in range(draw.randint(1, 4)):
            inner = draw.choice((6, 8, 10))
            by_tuple = draw.random() < 0.5
            attentions = Heads(self.hidden_dim, draw.choice((2, 3, 4))), Caching(self.hidden_dim)
            others = Packed(self.hidden_dim, inner, by_tuple=by_tuple), Partial(self.hidden_dim, 4, by_tuple=by_tuple)
            layers.append(draw.choice((*attentions, *others)))
        self.layers, self.scores = nn.ModuleList(layers), nn.Linear(self.hidden_dim, 4)
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.view(-1, 3, 4)).reshape(x.shape[0], 3, self.hidden_dim)
        for layer in self.layers:
            x = x + layer(x)
        return self.scores(self.norm(x).mean(1)) * self.gain


def make(seed: int = 0) -> tuple[Held, Tensor]:
    torch.manual_seed(seed)
    return Held(seed).eval(), torch.randn(3, 12)


@given(seed=st.integers(0, 100_000), ratio=st.floats(0.1, 0.9))
@settings(max_examples=15)
def test_every_group_leaves_and_the_narrow_network_computes_the_same(seed: int, ratio: float) -> None:
    model, x = make(seed)
    found = find_removable(model, x)
    assert found.staying == {"scores": "the model returns them"}
    assert len(found.groups) == 1 + sum(not isinstance(layer, Partial) for layer in model.layers)
    before = {name: list_numbers(module) for name, module in model.named_modules()}
    made = remove_at_random(model, found.groups, ratio, seed)
    expected = model(x)
    with narrowed(model, found.groups, made) as (small, _):
        assert differ(expected, small(x)) <= ROUNDING
        assert small.hidden_dim == len(small.stem.weight)
        assert all(layer.attn_dim == layer.num_heads * SIZE for layer in small.layers if isinstance(layer, Heads))
        assert all(one.places == other.places for one, other in zip(small.layers, model.layers, strict=True)
                   if isinstance(one, Heads))  # fmt: skip
    assert {name: list_numbers(module) for name, module in model.named_modules()} == before
    smaller = compact(model, x)
    assert differ(expected, smaller(x)) <= ROUNDING
    assert smaller.hidden_dim < model.hidden_dim or ratio * model.hidden_dim <= 0.5


@given(seed=st.integers(0, 100_000))
@settings(max_examples=6)
def test_more_of_what_is_left_leaves_later(seed: int) -> None:
    model, x = make(seed)
    groups, small = find_groups(model, x), copy.deepcopy(model)
    for share in (0.3, 0.6):
        kept = [torch.rand(group.count, generator=seeded(seed)) > share for group in groups]
        kept = [keep | (torch.arange(len(keep)) == 0) for keep in kept]
        groups = remove_channels(small, groups, kept)
        assert [group.count for group in groups] == [int(keep.sum()) for keep in kept]
    assert small(x).shape == (3, 4)
    assert small.hidden_dim == len(small.stem.weight) == groups[0].count


def test_zeros_do_not_hide_which_number_it_is() -> None:
    model, x = make(3)
    expected = [group.held for group in find_groups(model, x)]
    assert all(expected)
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.zero_()
    for one, other in zip(expected, find_groups(model, x), strict=True):
        assert [(n.module, n.attribute) for n in one] == [(n.module, n.attribute) for n in other.held]


class Literal(nn.Module):
    """Its width stands in the code, and its attributes are as large and count something else."""

    def __init__(self, decoy: int) -> None:
        super().__init__()
        self.decoy = decoy
        self.first, self.last = nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).view(-1, 12)) * self.decoy


@pytest.mark.parametrize("decoy", [12, 6, 7])
def test_a_literal_keeps_channels(decoy: int) -> None:
    model, x = Literal(decoy), torch.randn(3, 12)
    found = find_removable(model, x)
    assert found.groups == []
    assert found.staying["first"].startswith("the code of the model does not work with fewer of them")
    assert model.decoy == decoy


def test_it_learns_what_the_masked_network_learns() -> None:
    model, x = make(5)
    groups = find_groups(model, x)
    state = State(model, remove_at_random(model, groups, 0.5), groups=groups)
    masked = State(copy.deepcopy(model), state.masks)
    train = Split(torch.randn(64, 12, generator=seeded(1)), torch.randint(4, (64,), generator=seeded(2)))
    plan = Plan({}, {}, final_steps=3, lr=0.01, batch_size=16)
    for one in (state, masked):
        iterative.retrain(one, plan, 1, train, seeded(3))
    assert masks.compression(state.masks) > 0.5
    with narrowed(model, groups, state.masks) as (small, _), narrowed(masked.model, groups, state.masks) as (other, _):
        for (name, value), same in zip(small.state_dict().items(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(value, same, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("to", ["dense", "pt2"])
def test_it_is_exported(tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, x = make()
    groups = find_groups(model, x)
    checkpoint.write(tmp_path / "a.safetensors", "test_held:Held", model, remove_at_random(model, groups, 0.5))
    split = Split(torch.rand(20, 12), torch.randint(4, (20,)))
    file = Path("b" + formats[to].ending)
    report = export(Path("a.safetensors"), to, Data(split, split, lambda: split), file, print)
    assert report.agree == 20
    assert report.macs_file < 0.5 * report.macs_dense
    if to == "dense":
        loaded = tune_prune.load(file)
        assert differ(model(x), loaded(x)) <= ROUNDING
        assert find_changed_numbers(model, loaded) == find_changed_numbers(model, compact(model, x))
        assert loaded.hidden_dim == len(loaded.stem.weight)


@pytest.mark.parametrize(
    "numbers",
    [{"": {"absent": 2}}, {"layers.9": {"sizes": 2}}, {"": {"hidden_dim": "3"}}, {"": {"hidden_dim": -1}}, {"": 3}, 3],
)
def test_a_file_that_names_numbers_of_another_model(tmp_path: Path, numbers: object) -> None:
    header = {"tune_prune": json.dumps({"model": "test_held:Held", "compact": True, "numbers": numbers})}
    save_file(make()[0].state_dict(), tmp_path / "a.safetensors", header)
    said = fault(lambda: tune_prune.load(tmp_path / "a.safetensors"))
    assert "a.safetensors: the model holds no numbers" in said
