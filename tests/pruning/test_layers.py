import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import Halved, Mixed, Mixer, Recurrent, Words, fault, mlp, seeded, unlabelled

import tune_prune
from tune_prune.export import costs, sparse_format
from tune_prune.pruning import checkpoint, criteria, granularity, iterative, layers, masks
from tune_prune.pruning.coverage import measure_coverage
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context, statistics
from tune_prune.tasks.splits import Data, as_float


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is taken out again."""
    monkeypatch.setattr(layers, "registered", dict(layers.registered))


LSTM = ["input", "forget", "cell", "output"]


@pytest.mark.parametrize(
    ("layer", "labels"),
    [
        (nn.LSTM(3, 5), [f"weight_{m}_l0.{gate}" for m in ("ih", "hh") for gate in LSTM]),
        (nn.GRU(3, 5), [f"weight_{m}_l0.{gate}" for m in ("ih", "hh") for gate in ("reset", "update", "new")]),
        (nn.RNN(3, 5, num_layers=2), ["weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"]),
        (nn.RNN(3, 5, bidirectional=True), [f"weight_{m}_l0{way}" for way in ("", "_reverse") for m in ("ih", "hh")]),
        (
            nn.LSTM(3, 5, proj_size=2),
            [*(f"weight_{m}_l0.{gate}" for m in ("ih", "hh") for gate in LSTM), "weight_hr_l0"],
        ),
        (nn.LSTMCell(3, 5), [f"weight_{m}.{gate}" for m in ("ih", "hh") for gate in LSTM]),
        (nn.GRUCell(3, 5), [f"weight_{m}.{gate}" for m in ("ih", "hh") for gate in ("reset", "update", "new")]),
        (nn.RNNCell(3, 5), ["weight_ih", "weight_hh"]),
    ],
)
def test_gates_are_layers_and_cover_all_weights(layer: nn.Module, labels: list[str]) -> None:
    assert list(masks.prunable(layer)) == labels
    assert list(masks.prunable(nn.ModuleDict({"a": layer}))) == [f"a.{label}" for label in labels]
    assert list(masks.prunable(nn.Sequential(nn.ReLU(), layer))) == [f"2/{label}" for label in labels]
    assert measure_coverage(layer).share == 1


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, LSTM), (nn.GRU, ["reset", "update", "new"])])
def test_a_gate_is_what_torch_says_it_is(kind: type[nn.RNNBase], gates: list[str]) -> None:
    """By the documented equations: without the weights of a gate, it is its sigmoid or tanh of 0."""
    layer, inputs = kind(3, 2, bias=False), torch.randn(4, 1, 3, generator=seeded(0))
    for gate in gates:
        pruned = copy.deepcopy(layer)
        removed = {
            label: torch.zeros_like(mask) if label.endswith(f".{gate}") else mask
            for label, mask in masks.dense_masks(pruned).items()
        }
        masks.apply(pruned, removed)
        outputs = pruned(inputs)[0]
        expected = by_hand(layer, inputs, gates.index(gate), kind)
        assert torch.allclose(outputs, expected, atol=1e-6)
        assert not torch.allclose(outputs, layer(inputs)[0], atol=1e-3)


def by_hand(layer: nn.RNNBase, inputs: Tensor, without: int, kind: type) -> Tensor:
    """The outputs of an LSTM or GRU with the pre-activations of one gate set to 0."""
    hidden, cell, outputs = torch.zeros(1, 2), torch.zeros(1, 2), []
    ih, hh = (m.detach() for m in (layer.weight_ih_l0, layer.weight_hh_l0))
    for step in inputs:
        parts = list(zip((step @ ih.T).split(2, 1), (hidden @ hh.T).split(2, 1), strict=True))
        parts[without] = (torch.zeros(1, 2), torch.zeros(1, 2))
        if kind is nn.LSTM:
            i, f, g, o = (a + b for a, b in parts)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        else:
            (ri, rh), (zi, zh), (ni, nh) = parts
            new, update = (ni + (ri + rh).sigmoid() * nh).tanh(), (zi + zh).sigmoid()
            hidden = (1 - update) * new + update * hidden
        outputs.append(hidden)
    return torch.stack(outputs)


@pytest.mark.parametrize("pruner", ["mag", "taylor12", "l1", "emp", "random"])
def test_a_recurrent_network_is_pruned_by_gate(pruner: str, toy_data: Data, tmp_path: Path) -> None:
    state = iterative.initial_state(Recurrent())
    ratios = {"rows.weight_ih_l0.forget": 0.75, "rows.weight_hh_l0.cell": 0.5, "head": 0.25}
    if pruner == "emp":
        ratios.pop("rows.weight_hh_l0.cell")
    plan = Plan(ratios, dict.fromkeys(ratios, pruner), rounds=2, steps=3, final_steps=3, weight_decay=0.01, sample=20)
    list(iterative.prune(state, plan, toy_data.train, toy_data.validation, 0))
    forget = state.model.rows.weight_ih_l0[16:32]
    assert int((forget == 0).sum()) == 96
    assert torch.equal(forget != 0, state.masks["rows.weight_ih_l0.forget"] != 0)
    assert state.model.rows.weight_ih_l0[:16].all()
    name = "toys:Recurrent"
    checkpoint.write(tmp_path / "a.safetensors", name, state.model, state.masks)
    (tmp_path / "b.safetensors").write_bytes(sparse_format.dumps(name, state.model, state.masks))
    for read in (checkpoint.read(tmp_path / "a.safetensors"), sparse_format.read(tmp_path / "b.safetensors")):
        loaded, found = checkpoint.restore(read, "x")
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in state.model.state_dict().items())
        assert all(torch.equal(found[label] != 0, mask != 0) for label, mask in state.masks.items())


@pytest.mark.parametrize("name", ["gradient", "hessian"])
def test_statistics_of_gates_are_those_of_their_matrix(name: str, toy_data: Data) -> None:
    torch.manual_seed(0)
    model = Recurrent()
    found = statistics[name](Context(model, toy_data.train, seeded(0)))
    assert list(found) == list(masks.prunable(model))
    whole = torch.cat([found[f"rows.weight_hh_l0.{gate}"] for gate in LSTM])
    loss = nn.functional.cross_entropy(model(as_float(toy_data.train.inputs)), toy_data.train.labels)
    expected = torch.autograd.grad(loss, model.rows.weight_hh_l0)[0]
    assert whole.shape == expected.shape
    assert whole.any(1).all()
    assert name != "gradient" or torch.allclose(whole, expected, atol=1e-6)


def test_gates_take_no_gradient_rather_than_a_wrong_one() -> None:
    model = Recurrent()
    loss = model(torch.rand(2, 1, 8, 8)).sum()
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(loss, list(masks.prunable(model).values()), allow_unused=True)


def test_multiply_adds() -> None:
    uses = costs.count_uses(Recurrent(), unlabelled(torch.rand(3, 1, 8, 8)))
    assert uses == {label: 1.0 if label == "head" else 8.0 for label in masks.prunable(Recurrent())}
    uses = costs.count_uses(Words(), unlabelled(torch.randint(20, (3, 5))))
    assert uses.pop("table") == 1  # as the head, with which it shares its weight
    assert set(uses.values()) == {5.0}
    assert costs.count_uses(nn.Sequential(nn.Embedding(5, 3)), unlabelled(torch.randint(5, (2, 7)))) == {"1": 0}
    packed = nn.utils.rnn.pack_sequence([torch.rand(4, 3), torch.rand(2, 3)])

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.LSTM(3, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.steps(packed)[0].data

    assert set(costs.count_uses(Outer(), unlabelled(torch.rand(2, 1))).values()) == {3.0}


def test_the_row_of_padding_goes_last() -> None:
    model = Words()
    labels = dict.fromkeys(masks.prunable(model), "mag")
    scores = criteria.score_layers(labels, Context(model, None, seeded(0)))["table"]  # type: ignore[arg-type]
    assert not model.table.weight[0].any()  # and would go first
    for name in granularity.granularities:
        mask = granularity.shrink(torch.ones(20, 8), scores, 0.5, name)
        assert mask[0].all()
        assert int((mask == 0).sum()) == 80
        again = granularity.shrink(mask, scores, 0.9, name)
        assert again[0].all()
        assert int((again == 0).sum()) == 144
    assert int((granularity.shrink(mask, scores, 0.99) == 0).sum()) == 158


class Conv1D(nn.Module):
    """A class of the name and module of Hugging Face's."""

    __module__ = "transformers.pytorch_utils"

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def test_the_linear_layer_of_hugging_face() -> None:
    model = nn.Sequential(Conv1D(5, 3), nn.ReLU(), nn.Linear(5, 2))
    assert masks.shapes(model) == {"1": (3, 5), "3": (2, 5)}
    assert masks.outputs_axes(model) == {"1": 1, "3": 0}
    assert costs.count_uses(model, unlabelled(torch.rand(4, 7, 3))) == {"1": 7, "3": 7}


def test_weights_without_a_shape_and_weights_that_are_no_numbers() -> None:
    said = fault(lambda: masks.prunable(nn.Sequential(nn.ReLU(), nn.LazyLinear(3))))
    assert said == "layer 2: LazyLinear has no weights yet; let the model's factory call the model once"
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].weight = nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)  # four bits each
    assert list(masks.prunable(model)) == ["2"]
    assert [one.module for one in measure_coverage(model).left_out] == ["1"]


@pytest.mark.parametrize("name", ["gradient", "hessian", "l1_gate"])
def test_frozen_layers_are_measured_as_others(name: str, toy_data: Data) -> None:
    models = [mlp(), mlp()]
    models[1].load_state_dict(models[0].state_dict())
    models[1][1].weight.requires_grad_(False)
    found = [statistics[name](Context(model, toy_data.train, seeded(0))) for model in models]
    assert all(torch.equal(value, found[1][label]) for label, value in found[0].items())
    assert not models[1][1].weight.requires_grad


# A user's own


def test_a_layer_of_ones_own_in_every_way_that_linear_layers_are(toy_data: Data) -> None:
    tune_prune.register(Mixer, weight="kernel", outputs_axis=1)
    model = Mixed()
    assert masks.shapes(model) == {"mixer": (64, 16), "head": (4, 16)}
    assert measure_coverage(model).counted == 1088
    assert costs.count_uses(model, unlabelled(torch.rand(2, 1, 8, 8))) == {"mixer": 1, "head": 1}
    plan = Plan({"mixer": 0.5}, {"mixer": "taylor1"}, rounds=1, final_steps=4, granularity="neuron")
    state = iterative.initial_state(model)
    list(iterative.prune(state, plan, toy_data.train, toy_data.validation, 0))
    columns = (state.model.mixer.kernel != 0).T
    assert (columns.any(1) == columns.all(1)).all()
    assert int(columns.any(1).sum()) == 8
    mask = granularity.shrink(torch.ones(64, 16), torch.rand(64, 16), 0.5, "2:4", 1)
    assert (mask.T.unflatten(1, (-1, 4)).sum(2) == 2).all()


class Pair(nn.Module):
    """Two weights without layers, of three axes and of one."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.scale = nn.Parameter(torch.rand(2, 3, 4)), nn.Parameter(torch.rand(4))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"a": torch.einsum("nij,ijk->nk", inputs, self.up) * self.scale}


def test_several_weights_of_a_module_and_its_subclass() -> None:
    tune_prune.register(Pair, weight=["up", "scale"], outputs_axis=-1)

    class Deeper(Pair):
        pass

    model = nn.ModuleList([Deeper(), nn.Linear(2, 2)])
    assert masks.shapes(model) == {"0.up": (2, 3, 4), "0.scale": (4,), "1": (2, 2)}
    assert costs.count_uses(Pair(), unlabelled(torch.rand(5, 2, 3))) == {"up": 1, "scale": 1}
    mask = granularity.shrink(torch.ones(2, 3, 4), torch.rand(2, 3, 4), 0.5, "neuron", -1)
    assert (mask.flatten(0, 1).any(0) == mask.flatten(0, 1).all(0)).all()
    tune_prune.register(Deeper, weight="up", outputs_axis=None, uses=lambda call: 7 * len(call.inputs["inputs"]))
    assert masks.shapes(model) == {"0": (2, 3, 4), "1": (2, 2)}
    assert costs.count_uses(Deeper(), unlabelled(torch.rand(5, 2, 3))) == {"": 7}


def test_a_registered_sequential_has_weights_of_its_own() -> None:
    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2))
            self.table = nn.Parameter(torch.rand(2, 2))

    assert list(masks.prunable(Scaled())) == ["1"]
    tune_prune.register(Scaled, weight=("table",))
    assert sum(weight.numel() for weight in masks.prunable(Scaled()).values()) == 8


def test_units_that_a_layer_does_not_have_are_refused() -> None:
    tune_prune.register(Pair, weight=["up", "scale"], outputs_axis=None)
    model = nn.ModuleList([Pair(), nn.Linear(2, 2)])
    for name in ("filter", "2:4"):
        said = fault(lambda name=name: granularity.check_layers(model, ["0.up", "1"], name, "a.toml"))
        assert said.startswith(f"a.toml: granularity {name!r} needs outputs and inputs, which the weights [2, 3, 4] of")
        assert "layer 0.up" in said
        granularity.check_layers(model, ["1"], name, "a.toml")
    granularity.check_layers(model, ["0.up", "0.scale", "1"], "weight", "a.toml")
    ones = {"0.up": torch.ones(2, 3, 4)}
    assert "layer 0.up" in fault(lambda: granularity.remove(ones, ones, 0.5, "filter", {"0.up": None}))


@pytest.mark.parametrize(
    ("weight", "axis", "said"),
    [
        ("kernels", 1, "layer mixer (Mixer) is registered with the weight 'kernels', which it does not have; it has: "),
        ("kernel", 2, "layer mixer: registered with outputs_axis=2, but kernel has 2 axes"),
    ],
)
def test_what_a_class_does_not_have(weight: str, axis: int, said: str) -> None:
    tune_prune.register(Mixer, weight=weight, outputs_axis=axis)
    assert fault(lambda: masks.prunable(Mixed())).startswith(said)


@pytest.mark.parametrize("wrong", [nn.Linear(2, 2), "Linear", int, None])
def test_only_classes_of_modules_are_registered(wrong: object) -> None:
    assert "a class of modules" in fault(lambda: tune_prune.register(wrong))  # type: ignore[arg-type]


def test_an_output_that_cannot_be_counted() -> None:
    class Silent(Mixer):
        def forward(self, inputs: Tensor) -> None:  # type: ignore[override]
            pass

    tune_prune.register(Silent, weight="kernel")
    assert "give register(uses=...)" in fault(lambda: costs.count_uses(Silent(2, 2), unlabelled(torch.rand(2, 2))))


# Half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_half_precision_tell_weights_apart(dtype: torch.dtype) -> None:
    model = nn.Sequential(mlp().to(dtype)[1])
    weight = model[0].weight.detach()
    gradient = torch.full_like(weight, 1e-5 if dtype == torch.float16 else 1.01)
    context = Context(model, None, seeded(0), cached={"gradient": {"1": gradient}})  # type: ignore[arg-type]
    scores = criteria.score_layers({"1": "taylor1"}, context)["1"]
    assert scores.dtype == torch.float32
    assert torch.equal(scores, (weight.float() * gradient.float()).abs())
    assert (weight * gradient).abs().unique().numel() < scores.unique().numel()


def test_gates_of_half_precision_move(toy_data: Data) -> None:
    found = statistics["l1_gate"](Context(Halved(), toy_data.train, seeded(0)))["net.1"]
    assert found.dtype == torch.float32
    assert found.unique().numel() > 256  # bfloat16 has 128 numbers between two powers of 2


def test_sums_of_gradients_in_half_precision(toy_data: Data) -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = mlp()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net(inputs.to(self.net[1].weight.dtype)).float()

    wide, narrow = Narrow(), Narrow().to(torch.bfloat16)
    expected, found = (statistics["gradient"](Context(model, toy_data.train, seeded(0))) for model in (wide, narrow))
    assert found["net.1"].dtype == torch.float32
    assert torch.allclose(found["net.1"], expected["net.1"], atol=0.05 * float(expected["net.1"].abs().max()))
