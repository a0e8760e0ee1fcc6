import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import Conv, mlp, seeded

from tune_prune.pruning import statistics
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.splits import Data, Split, as_float


@pytest.mark.usefixtures("small_statistics")
@pytest.mark.parametrize("name", statistics.statistics)
def test_contract(name: str, toy_model: nn.Module, toy_data: Data) -> None:
    before = copy.deepcopy(toy_model.state_dict())
    one, again = (statistics.statistics[name](Context(toy_model, toy_data.validation, seeded(2))) for _ in range(2))
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in prunable(toy_model).items()}
    assert all(torch.isfinite(value).all() for value in one.values())
    assert all(not value.requires_grad for value in one.values())
    assert all(torch.equal(one[label], again[label]) for label in one)
    assert all(torch.equal(value, before[key]) for key, value in toy_model.state_dict().items())
    assert all(parameter.grad is None for parameter in toy_model.parameters())


@pytest.mark.parametrize("batch", [1, 50, 120, 500])
def test_the_gradient_whatever_the_batches(
    monkeypatch: pytest.MonkeyPatch, toy_model: nn.Module, toy_data: Data, batch: int
) -> None:
    monkeypatch.setattr(statistics, "BATCH", batch)
    found = statistics.statistics["gradient"](Context(toy_model.train(), toy_data.validation, seeded(0)))
    inputs, labels = toy_data.validation
    F.cross_entropy(toy_model.eval()(as_float(inputs)), labels).backward()
    for label, weight in prunable(toy_model).items():
        assert torch.allclose(found[label], weight.grad, atol=1e-6)


def test_the_gradient_is_not_of_a_model_in_training(toy_data: Data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 4)).train()
    one, again = (statistics.statistics["gradient"](Context(model, toy_data.validation, seeded(0))) for _ in range(2))
    assert torch.equal(one["3"], again["3"])


def test_noise_is_uniform_and_seeded() -> None:
    def noise(seed: int) -> torch.Tensor:
        return statistics.statistics["noise"](Context(mlp(), images, seeded(seed)))["2"]

    images = draw_sample_of_one()
    draws = noise(1)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.05
    assert abs(draws.var() - 1 / 12) < 0.01
    assert not torch.equal(draws, noise(2))


def draw_sample_of_one() -> Split:
    return Split(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))


def test_a_sample_is_of_different_images_with_their_labels() -> None:
    split = Split(torch.arange(50.0)[:, None], torch.arange(50))
    sample = split.draw(20, seeded(0))
    assert len(set(sample.labels.tolist())) == 20
    assert sample.inputs[:, 0].tolist() == sample.labels.tolist()
    assert sample.labels.tolist() == split.draw(20, seeded(0)).labels.tolist()
    assert sample.labels.tolist() != split.draw(20, seeded(1)).labels.tolist()


def test_a_sample_of_more_than_there_is_is_all(toy_data: Data) -> None:
    sample = toy_data.train.draw(10_000, seeded(0))
    assert sorted(sample.labels.tolist()) == sorted(toy_data.train.labels.tolist())
    assert len(sample.inputs) == 240


def test_channels_last_has_the_same_gradient(toy_data: Data) -> None:
    model = Conv()
    before = statistics.statistics["gradient"](Context(model, toy_data.validation, seeded(0)))
    model.to(memory_format=torch.channels_last)
    after = statistics.statistics["gradient"](Context(model, toy_data.validation, seeded(0)))
    assert all(torch.allclose(before[label], after[label], atol=1e-5) for label in before)


# The Hessian's diagonal


def small() -> nn.Sequential:
    """32 weights and a tanh, so that the model itself is curved, which Gauss-Newton leaves out."""
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


def four_pixels() -> Split:
    return Split(torch.randn(20, 1, 2, 2, generator=seeded(1)), torch.arange(20) % 4)


def exact_diagonal(model: nn.Sequential, split: Split) -> dict[str, torch.Tensor]:
    """By autograd, of the whole Hessian of the mean cross-entropy with respect to both weights."""
    names = {"2": "1.weight", "4": "3.weight"}
    weights = prunable(model)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        changed = dict(zip(names.values(), values, strict=True))
        return F.cross_entropy(torch.func.functional_call(model, changed, (split.inputs,)), split.labels)

    whole = torch.autograd.functional.hessian(loss, tuple(weights.values()))
    return {
        label: whole[i][i].reshape(weight.numel(), -1).diagonal().reshape(weight.shape)
        for i, (label, weight) in enumerate(weights.items())
    }


@pytest.mark.parametrize("batch", [7, 500])
def test_orthogonal_probes_give_the_exact_diagonal(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(statistics, "BATCH", batch)
    model, split = small(), four_pixels()
    signs = torch.ones(1, 1)
    for _ in range(5):  # Sylvester's Hadamard matrix of order 32: over its rows, all products of two signs cancel
        signs = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), signs)
    probes = [[row[:16].reshape(4, 4), row[16:].reshape(4, 4)] for row in signs]
    weights = prunable(model)
    found = statistics._measure_curvature(Context(model, split, seeded(0)), list(weights.values()), probes)
    for diagonal, (label, exact) in zip(found, exact_diagonal(model, split).items(), strict=True):
        assert torch.allclose(diagonal, exact, atol=1e-6), label
    assert found[0].min() < 0  # as Gauss-Newton never is


def test_random_probes_come_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "PROBES", 2000)
    model, split = small(), four_pixels()
    found = statistics.statistics["hessian"](Context(model, split, seeded(0)))
    for label, exact in exact_diagonal(model, split).items():
        assert (found[label] - exact).norm() < 0.2 * exact.norm(), label


class Attending(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]: attention of the rows by fused kernels, where there are some."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.flatten(1, 2)
        return self.head(self.attend(rows, rows, rows, need_weights=False)[0].mean(1))


@pytest.mark.usefixtures("small_statistics")
def test_curvature_of_attention(toy_data: Data) -> None:
    torch.manual_seed(0)
    found = statistics.statistics["hessian"](Context(Attending(), toy_data.validation, seeded(0)))
    assert list(found) == ["attend.in_proj", "attend.out_proj", "head"]
    assert all(value.isfinite().all() and value.any() for value in found.values())
