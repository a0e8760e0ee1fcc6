import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import fault, mlp, seeded

from tune_prune.pruning import masks, statistics
from tune_prune.pruning.criteria import ScoreError, criteria, criterion, find_criterion, score_layers
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.splits import Data, as_float


def everywhere(name: str, model: nn.Module) -> dict[str, str]:
    """The same pruner for every layer."""
    return dict.fromkeys(prunable(model), name)


# A user's own, by address


def largest_first(weight: Tensor) -> Tensor:
    return -weight.abs()


def not_a_number(weight: Tensor) -> Tensor:
    return weight.abs().where(weight > 0, torch.nan)


def one_infinity(weight: Tensor) -> Tensor:
    return weight.abs().index_fill(0, torch.tensor([0]), torch.inf)


def a_row(weight: Tensor) -> Tensor:
    return weight[0]


def decayed(weight: Tensor, gamma: float = 0.5) -> Tensor:
    return weight * gamma


@pytest.mark.usefixtures("small_statistics")
@pytest.mark.parametrize("name", criteria)
def test_contract(name: str, toy_model: nn.Module, toy_data: Data) -> None:
    layers = prunable(toy_model)
    found = masks.dense_masks(toy_model)
    for ratio in (0.3, 0.3, 0.8):
        before = copy.deepcopy(toy_model.state_dict())
        scores, again = (
            score_layers(everywhere(name, toy_model), Context(toy_model, toy_data.train, seeded(1))) for _ in range(2)
        )
        assert all(torch.equal(value, before[key]) for key, value in toy_model.state_dict().items())
        assert list(scores) == list(layers)
        for label, weight in layers.items():
            assert scores[label].shape == weight.shape
            assert torch.isfinite(scores[label]).all()
            assert torch.equal(scores[label], again[label])
            removed = found[label] == 0
            found[label] = masks.shrink(found[label], scores[label], ratio)
            assert (found[label][removed] == 0).all()
            assert int((found[label] == 0).sum()) == round(ratio * weight.numel())
        masks.apply(toy_model, found)


@pytest.mark.parametrize("name", criteria)
def test_every_pruner_says_what_it_is(name: str) -> None:
    assert criteria[name].__doc__
    assert find_criterion(name) is criteria[name]


def test_mag_is_the_magnitude(toy_model: nn.Module, toy_data: Data) -> None:
    scores = score_layers(everywhere("mag", toy_model), Context(toy_model, toy_data.train, seeded(0)))
    for label, weight in prunable(toy_model).items():
        assert torch.equal(scores[label], weight.detach().abs())


def test_taylor1_against_autograd(toy_model: nn.Module, toy_data: Data) -> None:
    scores = score_layers(everywhere("taylor1", toy_model), Context(toy_model, toy_data.train, seeded(0)))
    F.cross_entropy(toy_model.eval()(as_float(toy_data.train.inputs)), toy_data.train.labels).backward()
    for label, weight in prunable(toy_model).items():
        assert torch.allclose(scores[label], (weight.grad * weight).abs().detach(), atol=1e-6)


def test_random_is_another_order_for_another_seed(toy_data: Data) -> None:
    model = mlp()
    one, other = (score_layers({"2": "random"}, Context(model, toy_data.train, seeded(seed)))["2"] for seed in (1, 2))
    assert not torch.equal(one.flatten().argsort(), other.flatten().argsort())


def test_each_layer_by_its_own_pruner(toy_data: Data) -> None:
    model = mlp()
    context = Context(model, toy_data.train, seeded(0))
    scores = score_layers({"4": f"{__name__}:largest_first", "2": "taylor1"}, context)
    assert torch.equal(scores["4"], -model[3].weight.detach().abs())
    assert torch.equal(scores["2"], score_layers({"2": "taylor1"}, context)["2"])


def test_a_statistic_is_measured_once_and_only_where_asked_for(monkeypatch: pytest.MonkeyPatch, toy_data: Data) -> None:
    measured: list[str] = []
    for name in statistics.statistics:
        original = statistics.statistics[name]

        def counting(
            context: Context, name: str = name, original: statistics.Statistic = original
        ) -> dict[str, Tensor]:
            measured.append(name)
            return original(context)

        monkeypatch.setitem(statistics.statistics._entries, name, counting)
    context = Context(mlp(), toy_data.train, seeded(0))
    score_layers({"2": "mag", "4": "mag"}, context)
    assert measured == []
    score_layers({"2": "taylor1", "4": "taylor1"}, context)
    assert measured == ["gradient"]


def test_a_statistic_is_measured_for_the_layers_that_use_it(monkeypatch: pytest.MonkeyPatch, toy_data: Data) -> None:
    measured: list[list[str]] = []
    original = statistics.statistics["loss_change"]

    def noting(context: Context) -> dict[str, Tensor]:
        measured.append(list(context.select_weights()))
        return original(context)

    monkeypatch.setitem(statistics.statistics._entries, "loss_change", noting)
    context = Context(mlp(), toy_data.train, seeded(0))
    one = score_layers({"2": "mag", "4": "emp"}, context)["4"]
    both = score_layers({"2": "emp", "4": "emp"}, context)["4"]
    assert measured == [["4"], ["2", "4"]]
    assert torch.equal(one, both)


@pytest.mark.parametrize("name", ["not_a_number", "one_infinity"])
def test_scores_that_are_not_finite(toy_data: Data, name: str) -> None:
    address = f"{__name__}:{name}"
    with pytest.raises(ScoreError, match=rf"pruner {address} gave scores that are not finite for layer 4"):
        score_layers({"2": "mag", "4": address}, Context(mlp(), toy_data.train, seeded(0)))


def test_scores_of_another_shape(toy_data: Data) -> None:
    said = re.escape(f"pruner {__name__}:a_row gave scores of shape [64] for layer 2; its weight has [16, 64]")
    with pytest.raises(ScoreError, match=said):
        score_layers({"2": f"{__name__}:a_row"}, Context(mlp(), toy_data.train, seeded(0)))


def test_an_unknown_parameter_is_refused_and_not_registered() -> None:
    def fisher(weight: Tensor, information: Tensor) -> Tensor:
        return weight * information

    names = ", ".join(statistics.statistics)
    assert fault(lambda: criterion(fisher)) == f"pruner 'fisher' asks for 'information'; known: weight, {names}"
    assert "fisher" not in criteria


def test_a_pruner_under_a_name_that_is_taken() -> None:
    def mag(weight: Tensor) -> Tensor:
        return weight

    with pytest.raises(ValueError, match="pruner 'mag' is registered already"):
        criterion(mag)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("magg", "unknown pruner 'magg'; did you mean mag? known: mag, "),
        (f"{__name__}:decayed", "asks for 'gamma'; known: weight, "),
        (f"{__name__}:no_such", f"{__name__} has no 'no_such'"),
        ("torch:abs", "pruner 'torch:abs' has no readable signature"),
    ],
)
def test_pruners_that_cannot_be_used(name: str, said: str) -> None:
    assert said in fault(lambda: find_criterion(name))
