import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from toys import COMPUTED, computed, fault, orthogonal

import tune_prune
from tune_prune.export import sparse_format
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.coverage import measure_coverage
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context, statistics
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import build
from tune_prune.tasks.splits import Data
from tune_prune.training.resources import limit_threads

RATIOS = {"1": 0.5, "4": 0.9, "6": 0.25}


@pytest.fixture(autouse=True)
def single() -> Iterator[None]:
    """One thread, so that sums are added in the same order."""
    with limit_threads(1):
        yield


def shown(model: nn.Module) -> dict[str, Tensor]:
    """The weights that the layers themselves show after a call, by label."""
    with torch.no_grad():
        model.eval()(torch.zeros(1, 1, 8, 8))
    return {label: model[int(label) - 1].weight.detach() for label in ("1", "4", "6")}


def pruned(kind: str, data: Data, granularity: str = "weight", pruner: str = "mag", steps: int = 6) -> iterative.State:
    """The state after two rounds of pruning with retraining."""
    state = iterative.initial_state(build(f"toys:computed(kind={kind!r})"))
    plan = Plan(
        RATIOS, dict.fromkeys(RATIOS, pruner), rounds=2, steps=steps, final_steps=steps, weight_decay=0.01,
        granularity=granularity,
    )  # fmt: skip
    for point in iterative.prune(state, plan, data.train, data.validation, 0):
        assert torch.isfinite(torch.tensor(point.loss))
    return state


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_removed_weights_stay_zero_and_the_others_learn(kind: str, granularity: str, toy_data: Data) -> None:
    state = pruned(kind, toy_data, granularity)
    assert masks.kept_counts(state.masks)["4"][0] == round(0.1 * 72 * 16) if granularity == "weight" else 72
    for label, weight in shown(state.model).items():
        assert torch.equal(weight != 0, state.masks[label] != 0)
        assert torch.equal(weight, masks.effective(state.model)[label])
    if granularity == "filter":
        assert not state.masks["4"].any(1).all()
    if kind != "pruned":
        assert masks.dense_masks(state.model)["4"].all()
    before = shown(pruned(kind, toy_data, granularity, steps=0).model)
    assert not torch.equal(before["4"], shown(state.model)["4"])


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_files_load_bit_for_bit_into_the_users_own_module(
    kind: str, granularity: str, toy_data: Data, tmp_path: Path
) -> None:
    state, name = pruned(kind, toy_data, granularity), f"toys:computed(kind={kind!r})"
    checkpoint.write(tmp_path / "a.safetensors", name, state.model, state.masks)
    (tmp_path / "b.safetensors").write_bytes(sparse_format.dumps(name, state.model, state.masks))
    inputs = torch.rand(5, 1, 8, 8)
    for path in (tmp_path / "a.safetensors", tmp_path / "b.safetensors"):
        loaded = tune_prune.load(path)
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in state.model.state_dict().items())
        assert torch.equal(loaded(inputs), state.model.eval()(inputs))
    for read in (checkpoint.read(tmp_path / "a.safetensors"), sparse_format.read(tmp_path / "b.safetensors")):
        found = checkpoint.restore(read, "x")[1]
        assert all(torch.equal(found[label] != 0, mask != 0) for label, mask in state.masks.items())
    # without this package, too
    plain = computed(kind)
    plain.load_state_dict(state.model.state_dict())
    assert torch.equal(plain.eval()(inputs), state.model.eval()(inputs))


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("pruner", ["taylor12", "l1", "emp"])
def test_pruners_that_measure(kind: str, pruner: str, toy_data: Data) -> None:
    state = iterative.initial_state(build(f"toys:computed(kind={kind!r})"))
    plan = Plan({"1": 0.5}, {"1": pruner}, sample=20)
    iterative.prune_once(state, plan, 1, toy_data.train, iterative.round_generator(0, 1))
    assert int((shown(state.model)["1"] == 0).sum()) == 36


def test_the_loss_without_the_last_weight_of_an_output(toy_data: Data) -> None:
    state = iterative.initial_state(computed("weight_norm"))
    state.masks["1"][0] = 0  # an output without weights
    state.masks["1"][1].view(-1)[1:] = 0  # one with a single weight
    masks.apply(state.model, state.masks)
    before = copy.deepcopy(state.model.state_dict())
    found = statistics["loss_change"](Context(state.model, toy_data.train, torch.Generator(), layers=["1"]))["1"]
    assert all(torch.equal(value, before[key]) for key, value in state.model.state_dict().items())
    assert found.isfinite().all()
    assert not found[0].any()
    losses = []
    for mask in (state.masks["1"], state.masks["1"].index_fill(0, torch.tensor([1]), 0)):
        masks.apply(state.model, state.masks | {"1": mask})
        losses.append(evaluate(state.model, toy_data.train).loss)
    assert float(found[1].view(-1)[0]) == pytest.approx(losses[1] - losses[0], abs=1e-5)


def test_a_weight_is_scored_as_the_model_computes_with_it(toy_data: Data) -> None:
    model = computed("weight_norm")
    with torch.no_grad():
        model[3].parametrizations.weight.original1.mul_(torch.rand(16, 1) * 100)  # which changes no output
    state, weight = iterative.initial_state(model), shown(model)["4"].abs()
    iterative.prune_once(state, Plan({"4": 0.5}, {"4": "mag"}), 1, toy_data.train, iterative.round_generator(0, 1))
    kept = state.masks["4"] != 0
    assert weight[kept].min() >= weight[~kept].max()


def test_scores_leave_a_spectral_norm_in_training_as_it_is() -> None:
    model = computed("spectral_norm").train()
    before = copy.deepcopy(model.state_dict())
    masks.effective(model)
    masks.apply(model, masks.dense_masks(model))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("dim", [0, 1, None])
def test_norms_along_any_axis(dim: int | None) -> None:
    layer = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4), dim=dim))
    mask = torch.ones(4, 3)
    mask[1], mask[:, 2] = 0, 0
    masks.apply(layer, {"1": mask})
    assert torch.equal(layer[0].weight != 0, mask != 0)
    masks.apply(layer, {"1": torch.zeros(4, 3)})
    assert torch.equal(layer[0].weight, torch.zeros(4, 3))
    assert layer[0].weight.isfinite().all()


def test_what_was_pruned_by_torch_is_removed_and_counted(toy_data: Data) -> None:
    model = computed("pruned")
    found = masks.dense_masks(model)
    assert torch.equal(found["4"], model[3].weight_mask)
    assert masks.compression({"4": found["4"]}) == 0.25
    state = pruned("pruned", toy_data)
    assert (state.masks["4"] <= state.model[3].weight_mask).all()


def test_a_damaged_file_of_a_computed_weight(toy_data: Data, tmp_path: Path) -> None:
    state = pruned("weight_norm", toy_data)
    with torch.no_grad():
        state.model[3].parametrizations.weight.original1.add_(1)
    checkpoint.write(tmp_path / "a.safetensors", "toys:computed(kind='weight_norm')", state.model, state.masks)
    assert "layer 4 has weights that its mask removes" in fault(lambda: tune_prune.load(tmp_path / "a.safetensors"))


class Symmetric(nn.Module):
    """A user's own parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


class Standardized(nn.Linear):
    """A layer that computes its weight in a hook of its own."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.raw = self.weight
        del self.weight
        self.register_forward_pre_hook(lambda module, args: setattr(module, "weight", module.raw - module.raw.mean()))


def test_a_weight_that_keeps_no_zeros_is_refused() -> None:
    symmetric = nn.Linear(8, 8)
    parametrize.register_parametrization(symmetric, "weight", Symmetric())
    both = parametrizations.weight_norm(nn.Linear(8, 8))
    parametrize.register_parametrization(both, "weight", Symmetric())
    for model in (orthogonal(), nn.Sequential(nn.ReLU(), symmetric), nn.Sequential(nn.ReLU(), both)):
        for call in (masks.dense_masks, masks.shapes, measure_coverage):
            said = fault(lambda call=call, model=model: call(model))
            assert said.startswith("the weight of layer 2 is computed from other tensors")
            assert "remove_parametrizations(layer, 'weight')" in said
    hooked = nn.Sequential(nn.ReLU(), Standardized())
    hooked(torch.zeros(1, 8))
    assert "the weight of layer 2 is computed" in fault(lambda: masks.prunable(hooked))


def test_what_is_said_of_it_helps() -> None:
    model = orthogonal()
    parametrize.remove_parametrizations(model[1], "weight")
    assert list(masks.prunable(model)) == ["2", "4"]
