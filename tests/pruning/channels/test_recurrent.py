"""Units of recurrent layers: which hang together, and that a removed one stays zero, in masks and in files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from random_networks import remove_at_random
from torch import Tensor, nn
from toys import Recurrent, seeded

import tune_prune
from tune_prune.export.compaction import find_removable
from tune_prune.export.exporter import export
from tune_prune.export.formats import formats
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.channels.counting import count_channels
from tune_prune.pruning.channels.finding import find_channels, find_groups
from tune_prune.pruning.channels.recurrent import plain_recurrence
from tune_prune.pruning.channels.removal import find_kept, join_by_name, split_by_label
from tune_prune.pruning.channels.slicing import narrowed
from tune_prune.pruning.plan import WEIGHTS, Plan
from tune_prune.tasks.splits import Data, Split

GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
SETTINGS: tuple[dict[str, Any], ...] = (
    {}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True, "bias": False},
)  # fmt: skip


class Reader(nn.Module):
    """[n, 5, 3] -> [n, 4]; a state that is given makes it one of [n, 8]."""

    def __init__(self, kind: type[nn.RNNBase], given: str = "", **options: Any) -> None:
        super().__init__()
        self.layer, self.given, self.units = kind(3, 8, batch_first=True, **options), given, 8
        if given == "learned":
            self.start = nn.Parameter(torch.zeros(1, 1, 8))
        outputs = (self.layer.proj_size or 8) * (1 + self.layer.bidirectional)
        self.scores = nn.Linear(outputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not self.given:
            return self.scores(self.layer(x)[0][:, -1])
        state = torch.zeros(1, len(x), self.units if self.given == "zero" else 8)
        state = {"one": state + 1, "input": x[:, 0].mean() + state}.get(self.given, state)
        state = self.start.expand(1, len(x), -1).contiguous() if self.given == "learned" else state
        return self.scores(self.layer(x, (state, state) if isinstance(self.layer, nn.LSTM) else state)[0][:, -1])


class Translator(nn.Module):
    """[n, 5, 3] -> [n, 5, 4]: a second layer begins where the first ended."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(3, 8, batch_first=True), nn.LSTM(3, 8, batch_first=True)
        self.scores = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encoder(x)
        return self.scores(self.decoder(x, state)[0])


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_all_layers_and_directions_lose_the_same_units(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    model = Reader(kind, **options).eval()
    (group,) = find_channels(model, torch.rand(2, 5, 3)).groups
    assert group.count == 8
    listed = {member.tensor for member in group.members}
    assert listed == {name for name, _ in model.named_parameters()} - {"scores.bias"}
    counts = count_channels(model, [group])
    half = counts.left({group.name: 0.5})
    smaller = Reader(kind, **options)
    smaller.layer, smaller.scores = kind(3, 4, **options), nn.Linear(model.scores.in_features // 2, 4)
    assert half == sum(weight.numel() for weight in masks.prunable(smaller).values())


@pytest.mark.parametrize("kind", GATES)
def test_what_is_computed_in_the_trace_has_the_shape_of_what_is_computed(kind: type[nn.RNNBase]) -> None:
    for options in ({"num_layers": 2}, {"bidirectional": True}, {"batch_first": True}):
        layer = kind(3, 8, **options)
        for inputs in (torch.rand(5, 2, 3), torch.rand(5, 3)):
            expected = layer(inputs)
            with plain_recurrence(layer, lambda zeros, matrix: None):
                found = layer(inputs)
            assert "forward" not in vars(layer)
            assert [one.shape for one in flat(found)] == [one.shape for one in flat(expected)]


@pytest.mark.parametrize("kind", GATES)
def test_two_steps_are_computed_as_pytorch_does(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    layer = kind(3, 8, num_layers=2, bidirectional=False)
    inputs = torch.rand(1, 2, 3).expand(2, 2, 3)  # of equal steps the last output is that of the second
    expected, state = layer(inputs)
    with plain_recurrence(layer, lambda zeros, matrix: None):
        found, first_state = layer(inputs)
    (first, *_), (plain, *_) = flat(state), flat(first_state)
    torch.testing.assert_close(plain[0], first[0])  # of the first layer
    assert found.shape == expected.shape


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for one in value for tensor in flat(one)]


def test_a_state_that_is_passed_on_ties_the_layers() -> None:
    (group,) = find_channels(Translator().eval(), torch.rand(2, 5, 3)).groups
    assert {member.tensor.split(".")[0] for member in group.members} == {"encoder", "decoder", "scores"}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("given", ["zero", "learned"])
def test_a_state_that_the_model_makes(kind: type[nn.RNNBase], given: str) -> None:
    model, inputs = Reader(kind, given).eval(), torch.rand(2, 5, 3)
    (group,) = find_removable(model, inputs).groups
    assert group.count == 8
    assert any(member.tensor == "start" for member in group.members) == (given == "learned")
    made = remove_at_random(model, [group], 0.5)
    expected = model(inputs)
    with narrowed(model, [group], made) as (small, _):
        assert (small.layer.hidden_size, small.units) == (4, 4 if given == "zero" else 8)
        torch.testing.assert_close(small(inputs), expected)


@pytest.mark.parametrize("given", ["one", "input", "fixed"])
def test_units_stay_where_their_state_begins_otherwise(given: str) -> None:
    found = find_removable(Reader(nn.GRU, given).eval(), torch.rand(2, 5, 3))
    assert not found.groups
    assert any(label.startswith("layer.") for label in found.staying)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
def test_units_of_a_projection_stay() -> None:
    found = find_channels(Reader(nn.LSTM, proj_size=2).eval(), torch.rand(2, 5, 3))
    assert not found.groups
    assert "layer.weight_ih_l0.input" in found.staying


def test_gates_are_joined_and_split_again() -> None:
    model = Reader(nn.LSTM)
    drawn = {label: torch.rand(mask.shape) for label, mask in masks.dense_masks(model).items()}
    joined = join_by_name(model, drawn)
    assert joined["layer.weight_ih_l0"].shape == (32, 3)
    assert {label: one.tolist() for label, one in split_by_label(model, joined).items()} == {
        label: one.tolist() for label, one in drawn.items()
    }
    del drawn["layer.weight_ih_l0.cell"]
    assert "layer.weight_ih_l0" not in join_by_name(model, drawn)


def rows(count: int) -> Split:
    return Split(torch.rand(count, 1, 8, 8, generator=seeded(1)), torch.randint(4, (count,), generator=seeded(2)))


@pytest.mark.parametrize("to", ["dense", "pt2", "onnx", "sparse"])
@pytest.mark.parametrize("granularity", ["channel", "channel+weight"])
def test_it_is_trained_and_exported(tmp_path: Path, to: str, granularity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = Recurrent().eval()
    (group,) = find_groups(model, rows(2).inputs.float())
    ratios = {group.name: 0.75} | ({WEIGHTS + "rows.weight_hh_l0.cell": 0.5} if granularity != "channel" else {})
    plan = Plan(ratios, dict.fromkeys(ratios, "mag"), rounds=2, steps=2, final_steps=2, granularity=granularity)
    state = iterative.initial_state(model)
    *_, point = iterative.prune(state, plan, rows(64), rows(20), 0)
    assert point.ratios == ratios
    kept = find_kept(group, join_by_name(model, state.masks))
    assert int(kept.sum()) == 4
    outputs = model.rows(torch.rand(3, 8, 8))[0]
    assert outputs[..., kept].all()
    assert not outputs[..., ~kept].any()
    checkpoint.write(tmp_path / "a.safetensors", "toys:Recurrent", model, state.masks)
    file = Path("b" + formats[to].ending)
    test = rows(20)
    report = export(Path("a.safetensors"), to, Data(test, test, lambda: test), file, print)
    assert report.agree == 20
    if to == "dense":
        loaded = tune_prune.load(file)
        assert (loaded.rows.input_size, loaded.rows.hidden_size) == (8, 4)
        torch.testing.assert_close(loaded(test.inputs.float()), model(test.inputs.float()), rtol=1e-4, atol=1e-5)
