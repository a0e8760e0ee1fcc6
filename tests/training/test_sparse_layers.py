import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toys import seeded

from tune_prune.pruning import masks
from tune_prune.tasks.splits import Data, Split
from tune_prune.training import sparse_layers as module
from tune_prune.training.loop import DivergedError, fit
from tune_prune.training.optim import Recipe
from tune_prune.training.sparse_layers import MAX_KEPT, sparse_layers


def convolutions(bias: bool = True, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """[n, 6, 12, 10] -> [n, 5]; a convolution of 11,200 weights and a linear layer of at least 50,400."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 56, (5, 5), stride, padding, bias=bias),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(900, bias=bias),
        nn.ReLU(),
        nn.Linear(900, 5),
    )


def perceptron() -> nn.Sequential:
    """[n, 1, 8, 8] -> [n, 4], with two layers of 51,200 and 640,000 weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU(), nn.Linear(800, 4))


def prune(model: nn.Module, kept: float, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Removes weights at random; returns the pairs (weight, mask)."""
    generator = seeded(seed)
    pairs = [(w, (torch.rand(w.shape, generator=generator) < kept).float()) for w in masks.prunable(model).values()]
    for weight, mask in pairs:
        weight.data *= mask
    return pairs


def gradients(model: nn.Module, inputs: Tensor) -> tuple[float, Tensor, list[Tensor]]:
    """The loss of a batch, its gradient by the inputs, and those by the parameters."""
    given_ = inputs.clone().requires_grad_()
    labels = torch.arange(len(inputs)) % 4
    loss = F.cross_entropy(model(given_), labels)
    found = torch.autograd.grad(loss, [given_, *model.parameters()])
    return float(loss.detach()), found[0], list(found[1:])


@settings(max_examples=30, deadline=None)
@given(
    kept=st.floats(0.005, 0.11), n=st.integers(1, 9), bias=st.booleans(), stride=st.integers(1, 3),
    padding=st.integers(0, 2), seed=st.integers(0, 99), last=st.booleans(),
)  # fmt: skip
def test_loss_and_gradients_are_those_of_dense_layers(
    kept: float, n: int, bias: bool, stride: int, padding: int, seed: int, last: bool
) -> None:
    model, inputs = convolutions(bias, stride, padding), torch.randn(n, 6, 12, 10, generator=seeded(seed))
    if last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    model(inputs)
    pairs = prune(model, kept, seed)
    expected = gradients(model, inputs)
    names = [name for name, _ in model.named_parameters()]
    by_name = dict(zip(names, expected[2], strict=True))
    with sparse_layers(model, pairs, inputs) as rest:
        assert len(rest) < len(pairs)
        loss, by_inputs, found = gradients(model, inputs)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert torch.allclose(by_inputs, expected[1], atol=1e-6)
    kept_at = {id(weight): mask != 0 for weight, mask in pairs}
    for (name, parameter), gradient in zip(model.named_parameters(), found, strict=True):
        dense = by_name[name]
        if gradient.shape != dense.shape:
            dense = dense[kept_at[id(parameter)]].unsqueeze(0)
        assert torch.allclose(gradient, dense, atol=1e-5), name


@pytest.mark.parametrize("recipe", [
    Recipe(steps=20, lr=0.1, batch_size=32, distill=0.5),
    Recipe(steps=20, lr=0.05, batch_size=16, weight_decay=0.01, l1=1e-4, clip=0.5, accumulate=2),
])  # fmt: skip
def test_a_training_ends_where_a_dense_one_does(
    toy_data: Data, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    split = toy_data.train
    assert isinstance(split, Split)
    teacher = torch.randn(split.count, 4, generator=seeded(1))
    found = []
    for most in (MAX_KEPT, 0.0):
        monkeypatch.setattr(module, "MAX_KEPT", most)
        model = perceptron()
        pairs = prune(model, 0.09)
        fit(model, split, recipe, seeded(2), masks=pairs, teacher=teacher)
        assert all(bool((weight[mask == 0] == 0).all()) for weight, mask in pairs)
        found.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    sparse, dense = found
    assert torch.allclose(sparse, dense, atol=1e-4)
    assert not torch.equal(sparse, dense)  # sums in another order: it was computed in another way


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_back_afterwards(fails: bool) -> None:
    model = perceptron()
    pairs = prune(model, 0.05)
    before, names = [*model.parameters()], [*model.state_dict()]
    weights = copy.deepcopy(model.state_dict())
    try:
        with sparse_layers(model, pairs, torch.randn(2, 64)):
            assert model.get_parameter("1.weight").shape == (1, int(pairs[0][1].sum()))
            model.get_parameter("1.weight").data += 1
            if fails:
                raise DivergedError("test")
    except DivergedError:
        assert fails
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    assert [*model.state_dict()] == names
    assert torch.equal(model.get_parameter("1.weight"), weights["1.weight"] + pairs[0][1])
    assert torch.equal(model.get_parameter("3.weight"), weights["3.weight"])
    assert not any("forward" in vars(part) for part in model.modules())


class Uses(nn.Sequential):
    """A user's module that computes by a layer's weight."""

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self[0].weight
        assert isinstance(weight, Tensor)
        return self[1](inputs @ weight.t())  # type: ignore[no-any-return]


class Sums(nn.Sequential):
    """A user's module whose outputs have the right shape whatever a weight's shape is."""

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self[0].weight
        assert isinstance(weight, Tensor)
        return self[0](inputs) + weight.mean()  # type: ignore[no-any-return]


class Calls(nn.Sequential):
    """A user's module that calls its layers."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self[1](self[0](inputs).relu())  # type: ignore[no-any-return]


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(240, 240), nn.ReLU(), nn.Linear(240, 240))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        (perceptron(), 0.2),  # keeps too much
        (nn.Sequential(nn.Linear(90, 90)), 0.05),  # too small
        (nn.Sequential(nn.Linear(240, 240)), 0.0),  # keeps nothing
        (Uses(nn.Linear(240, 240), nn.Linear(240, 4)), 0.05),
        (Sums(nn.Linear(240, 240)), 0.05),
        (tied(), 0.05),
        (perceptron().double(), 0.05),
        (nn.Sequential(nn.Conv2d(40, 40, 3)), 0.05),  # a dense convolution is fast
        (nn.Sequential(nn.Conv2d(4, 120, 5, dilation=2)), 0.05),
        (nn.Sequential(nn.Conv2d(8, 220, 5, groups=2)), 0.05),
        (nn.Sequential(nn.Conv2d(4, 120, 5, padding=1, padding_mode="reflect")), 0.05),
        (nn.Sequential(nn.Conv2d(4, 120, 5, padding="same")), 0.05),
        (nn.Sequential(nn.Upsample(scale_factor=4), nn.MaxPool2d(1), nn.Conv2d(8, 60, 5)), 0.05),  # many patches
        (nn.Sequential(nn.Conv1d(40, 40, 9)), 0.05),
    ],
)
def test_what_stays_as_it_is(model: nn.Module, kept: float) -> None:
    first = next(model.parameters())
    sizes = {2: (), 3: (20,), 4: (12, 12)}[first.dim()]
    channels = 64 if isinstance(model[0], nn.Flatten) else getattr(model[-1], "in_channels", first.shape[1])  # type: ignore[index]
    sample = torch.randn(2, channels, *sizes, dtype=first.dtype)
    expected = model(sample)
    pairs, before = prune(model, kept), [*model.parameters()]
    with sparse_layers(model, pairs, sample) as rest:
        assert [id(weight) for weight, _ in rest] == [id(weight) for weight, _ in pairs]
        assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    assert not any("forward" in vars(part) for part in model.modules())
    assert expected.shape == model(sample).shape


def test_without_a_library_of_sparse_products_everything_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    model = perceptron()
    pairs = prune(model, 0.05)
    with sparse_layers(model, pairs, torch.randn(2, 64)) as rest:
        assert len(rest) == len(pairs)


@pytest.mark.parametrize("training", [False, True])
def test_a_model_of_the_users_that_calls_its_layers_is_computed_by_what_it_keeps(training: bool) -> None:
    model = Calls(nn.Linear(240, 240), nn.Linear(240, 4)).train(training)
    pairs = prune(model, 0.05)
    state = torch.get_rng_state()
    with sparse_layers(model, pairs, torch.randn(2, 240, generator=seeded(0))) as rest:
        assert [id(weight) for weight, _ in rest] == [id(pairs[1][0])]
        assert all(part.training == training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
