"""What a model does between its layers is followed, and where that cannot be done its channels stay."""

from collections.abc import Callable

import pytest
import torch
from random_networks import remove_at_random
from torch import Tensor, nn
from torch.nn import functional
from toys import Deciding, fault

from tune_prune.export.compaction import compact, find_removable
from tune_prune.pruning.channels.finding import find_channels, find_groups


class Between(nn.Module):
    """[n, 3, 4, 4] -> [n, 2]: a convolution of six channels, something, and a layer that reads it."""

    def __init__(self, something: Callable[[Tensor], Tensor], read: nn.Module) -> None:
        super().__init__()
        self.first, self.something, self.read = nn.Conv2d(3, 6, 1), something, read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.something(self.first(x))).flatten(1).sum(1)


def counts(something: Callable[[Tensor], Tensor], read: nn.Module) -> list[int]:
    model = Between(something, read).eval()
    return [group.count for group in find_groups(model, torch.randn(2, 3, 4, 4)) if group.name == "first"]


KEPT: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module, int]] = {
    "nothing": (lambda x: x, nn.Conv2d(6, 2, 1), 6),
    "activation": (lambda x: functional.leaky_relu(x) * 2 + 1, nn.Conv2d(6, 2, 1), 6),
    "pooling": (lambda x: functional.max_pool2d(x, 2), nn.Conv2d(6, 2, 1), 6),
    "upsampling": (lambda x: functional.interpolate(x, scale_factor=2.0), nn.Conv2d(6, 2, 1), 6),
    "flattening": (lambda x: x.flatten(1), nn.Linear(96, 2), 6),
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), nn.Linear(6, 2), 6),
    "mean": (lambda x: x.mean((2, 3)), nn.Linear(6, 2), 6),
    "padding": (lambda x: functional.pad(x, (1, 1, 1, 1)), nn.Conv2d(6, 2, 1), 6),
    "windows": (lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(2), nn.Conv1d(6, 2, 1), 6),
    "rolled": (lambda x: x.roll(1, 3), nn.Conv2d(6, 2, 1), 6),
    "a part": (lambda x: x[:, 2:], nn.Conv2d(4, 2, 1), 6),
    "with itself": (lambda x: torch.cat([x, x], 1), nn.Conv2d(12, 2, 1), 6),
    "shuffled": (lambda x: x.view(-1, 2, 3, 4, 4).transpose(1, 2).reshape(-1, 6, 4, 4), nn.Conv2d(6, 2, 1), 6),
    "two halves": (lambda x: torch.mul(*x.chunk(2, 1)), nn.Conv2d(3, 2, 1), 3),
    "grouped": (lambda x: x, nn.Conv2d(6, 4, 1, groups=2), 3),
    "group norm": (lambda x: x, nn.Sequential(nn.GroupNorm(3, 6), nn.Conv2d(6, 2, 1)), 3),
    "norm of one group": (lambda x: x, nn.Sequential(nn.GroupNorm(1, 6), nn.Conv2d(6, 2, 1)), 6),
    "instance norm": (lambda x: x, nn.Sequential(nn.InstanceNorm2d(6, affine=True), nn.Conv2d(6, 2, 1)), 6),
    "depthwise": (lambda x: x, nn.Sequential(nn.Conv2d(6, 12, 1, groups=6), nn.Conv2d(12, 2, 1)), 6),
}


ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.ELU, nn.CELU, nn.SELU, nn.SiLU),
    *(nn.Mish, nn.Threshold, nn.RReLU),
)  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_in_place_are_followed(activation: type[nn.Module]) -> None:
    settings = {"threshold": 0.0, "value": 0.0} if activation is nn.Threshold else {}
    assert counts(activation(inplace=True, **settings), nn.Conv2d(6, 2, 1)) == [6]


@pytest.mark.parametrize("what", KEPT)
def test_channels_are_followed(what: str) -> None:
    something, read, count = KEPT[what]
    assert counts(something, read) == [count]


@pytest.mark.parametrize(
    ("something", "read"),
    [
        (lambda x: x.sum(1, keepdim=True), nn.Conv2d(1, 2, 1)),
        (lambda x: x.softmax(1), nn.Conv2d(6, 2, 1)),
        (lambda x: x.cumsum(1), nn.Conv2d(6, 2, 1)),
        (lambda x: x.sort(1).values, nn.Conv2d(6, 2, 1)),
        (lambda x: x * torch.arange(6.0).view(1, 6, 1, 1), nn.Conv2d(6, 2, 1)),
        (lambda x: functional.group_norm(x, 1), nn.Conv2d(6, 2, 1)),
        (lambda x: torch.cat([x, x.new_zeros(2, 2, 4, 4)], 1) @ x.new_ones(4, 4), nn.GroupNorm(1, 8)),
    ],
)
def test_what_mixes_channels_keeps_them(something: Callable[[Tensor], Tensor], read: nn.Module) -> None:
    assert counts(something, read) == []


@pytest.mark.parametrize(("axis", "count", "vector"), [(1, 3, [0, 1, 2]), (2, 2, None)])
def test_a_vector_beside_rows_of_channels(axis: int, count: int, vector: list[int] | None) -> None:
    class Rows(nn.Module):
        """Two rows of three channels, multiplied by one vector and summed along an axis."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.vector, self.read = nn.Linear(4, 6), nn.Parameter(torch.randn(3)), nn.Linear(count, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.read((self.vector * self.first(x).view(-1, 2, 3)).sum(axis))

    (group,) = find_groups(Rows(), torch.randn(2, 4))
    listed = {member.tensor: member.channels.tolist() for member in group.members}
    assert group.count == count
    assert listed["first.weight"] == ([0, 1, 2, 0, 1, 2] if axis == 1 else [0, 0, 0, 1, 1, 1])
    assert listed.get("vector") == vector


def test_the_outputs_of_the_model_stay() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5))
    assert [group.name for group in find_groups(model, torch.randn(2, 4))] == ["1"]

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.scores = nn.Linear(4, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = self.inner(x)
            return {"hidden": hidden, "scores": self.scores(hidden)}

    assert find_channels(Both(), torch.randn(2, 4)).groups == []


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.Softmax(1), nn.Linear(8, 5)), {"1": "softmax in 1 needs all of them"}),
        (
            nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.GroupNorm(1, 8, affine=False)), nn.Linear(8, 5)),
            {"1": "native_group_norm in 1.0"},
        ),
        (nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 5)), {}),
    ],
)
def test_it_is_told_why_channels_stay(model: nn.Module, reasons: dict[str, str]) -> None:
    found = find_channels(model, torch.randn(2, 4))
    assert found.groups == []
    told = reasons | {"3" if len(model) == 3 else "2": "the model returns them"}
    assert found.staying.keys() == told.keys()
    assert all(reason in found.staying[label] for label, reason in told.items())


def test_layer_norms_are_told() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 5))
    assert [group.norms for group in find_groups(model, torch.randn(2, 4))] == [("1",)]


def test_a_layer_that_is_used_twice_reads_what_both_calls_give_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.both = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.both(self.one(x)) + self.both(self.other(x))

    (group,) = find_groups(Twice(), torch.randn(2, 4))
    outputs = [member.tensor for member in group.members if member.role == "output"]
    assert outputs == ["one.weight", "other.weight"]


def test_a_model_that_branches_on_data_says_where() -> None:
    said = fault(lambda: find_groups(Deciding(), torch.randn(2, 1, 8, 8)))
    assert said == "the model branches on data, in inner: which channels hang together may differ from call to call"


class Padding(nn.Module):
    """Its shortcut fills new channels with zeros (He et al. 2016, option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.scores = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.second(x).relu() + functional.pad(x, (0, 0, 0, 0, 0, 2))
        return self.scores(x.mean((2, 3)))


def test_channels_beside_zeros_stay_and_the_others_leave() -> None:
    (group,) = find_groups(Padding(), torch.randn(2, 3, 4, 4))
    assert (group.name, group.count) == ("first", 4)
    listed = {member.tensor: member.channels.tolist() for member in group.members if member.role == "output"}
    assert listed == {"first.weight": [0, 1, 2, 3], "second.weight": [0, 1, 2, 3, -1, -1]}
    model, x = Padding().eval(), torch.randn(2, 3, 4, 4)
    remove_at_random(model, find_removable(model, x).groups, 0.5)
    small = compact(model, x)
    assert (small.first.out_channels, small.second.out_channels, small.scores.in_features) == (2, 4, 4)
    torch.testing.assert_close(small(x), model(x))
