import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import Conv, Tied, mlp, seeded

from tune_prune.pruning import masks
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Data, Split, as_float
from tune_prune.training.loop import DivergedError, fit
from tune_prune.training.optim import Recipe

HARD = Recipe(steps=25, lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=32)


def weights_of(model: nn.Module) -> Tensor:
    """All of a model's parameters, one after the other."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(data: Data, recipe: Recipe, seed: int = 3, teacher: Tensor | None = None) -> Tensor:
    """Trains the toy MLP from the same weights every time; returns its weights."""
    torch.manual_seed(0)
    model = mlp()
    fit(model, data.train, recipe, seeded(seed), teacher=teacher)
    return weights_of(model)


# What fit does


def plain_steps(model: nn.Module, split: Split, recipe: Recipe, seed: int) -> list[Tensor]:
    """The weights after every step of SGD with Nesterov momentum, weight decay and a cosine, written out."""
    generator, n, found = seeded(seed), len(split.labels), []
    size = min(recipe.batch_size, n)
    epochs = [torch.randperm(n, generator=generator).split(size) for _ in range(recipe.steps)]
    batches = [batch for epoch in epochs for batch in epoch if len(batch) == size]
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    for step, index in enumerate(batches[: recipe.steps]):
        loss = F.cross_entropy(model(split.inputs[index] / 255), split.labels[index])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        lr = recipe.lr / 2 * (1 + math.cos(math.pi * step / recipe.steps))
        with torch.no_grad():
            for p, grad, v in zip(model.parameters(), grads, velocity, strict=True):
                g = grad + recipe.weight_decay * p
                v.mul_(recipe.momentum).add_(g)
                p.sub_(lr * (g + recipe.momentum * v))
        found.append(weights_of(model))
    return found


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("batch_size", "epoch_steps"), [(1000, 1), (240, 1), (64, 3)])
def test_fit_is_a_plain_loop(toy_data: Data, momentum: float, batch_size: int, epoch_steps: int) -> None:
    recipe = Recipe(steps=8, lr=0.1, momentum=momentum, weight_decay=0.02, batch_size=batch_size)
    model = mlp()
    expected = plain_steps(copy.deepcopy(model), toy_data.train, recipe, seed=3)
    found: list[Tensor] = []
    fit(model, toy_data.train, recipe, seeded(3), on_epoch=lambda epoch, loss: found.append(weights_of(model)))
    for one, other in zip(found, expected[epoch_steps - 1 :: epoch_steps], strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(weights_of(model), expected[-1], atol=1e-5)


def test_fit_learns(toy_data: Data) -> None:
    model = mlp()
    before = evaluate(model, toy_data.validation)
    fit(model, toy_data.train, Recipe(steps=150, lr=0.1, batch_size=32), seeded(3))
    after = evaluate(model, toy_data.validation)
    assert after.metric < before.metric / 2
    assert after.loss < before.loss / 2


@pytest.mark.parametrize("factory", [mlp, Conv, Tied])
def test_removed_weights_stay_exactly_zero(toy_data: Data, factory: type[nn.Module]) -> None:
    model = factory()
    found = {k: masks.shrink(m, torch.rand(m.shape), 0.7) for k, m in masks.dense_masks(model).items()}
    layers = masks.prunable(model)
    fit(model, toy_data.train, HARD, seeded(0))  # so that the weights are not zero and momentum is large
    masks.apply(model, found)
    before = {label: weight.detach().clone() for label, weight in layers.items()}
    every_step: list[bool] = []

    def look(epoch: int, loss: float) -> None:
        every_step.append(all(bool((layers[label][kept == 0] == 0).all()) for label, kept in found.items()))

    split = Split(toy_data.train.inputs[:32], toy_data.train.labels[:32])  # so that an epoch is a step
    fit(model, split, HARD, seeded(3), masks=[(layers[k], m) for k, m in found.items()], on_epoch=look)
    assert every_step == [True] * HARD.steps
    for label, kept in found.items():
        assert (layers[label] != before[label])[kept == 1].any()


def test_masks_of_ones_change_nothing(toy_data: Data) -> None:
    model = mlp()
    pairs = list(zip(masks.prunable(model).values(), masks.dense_masks(model).values(), strict=True))
    fit(model, toy_data.train, HARD, seeded(3), masks=pairs)
    assert torch.equal(weights_of(model), trained(toy_data, HARD))


def test_frozen_parameters_stay(toy_data: Data) -> None:
    model = mlp()
    before = model[1].weight.requires_grad_(False).clone()
    fit(model, toy_data.train, HARD, seeded(3))
    assert torch.equal(model[1].weight, before)


def test_the_seed_decides(toy_data: Data) -> None:
    assert torch.equal(trained(toy_data, HARD), trained(toy_data, HARD))
    assert not torch.equal(trained(toy_data, HARD), trained(toy_data, HARD, seed=4))


def test_the_seed_decides_what_a_model_draws_too(toy_data: Data) -> None:
    found = []
    for seed, elsewhere in ((1, 0), (1, 5), (2, 0)):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))
        torch.manual_seed(elsewhere)
        before = torch.random.get_rng_state()
        loss = fit(model, toy_data.train, Recipe(12, 0.1, batch_size=32), torch.Generator().manual_seed(seed))
        assert torch.equal(torch.random.get_rng_state(), before)  # draws outside of fit are not affected
        found.append(loss)
    assert found[0] == found[1] != found[2]


def test_augmented_images_are_other_images(toy_data: Data) -> None:
    recipe = Recipe(steps=5, lr=0.1, augment=True)
    assert torch.equal(trained(toy_data, recipe), trained(toy_data, recipe))
    assert not torch.equal(trained(toy_data, recipe), trained(toy_data, Recipe(steps=5, lr=0.1)))


def test_no_steps_change_nothing(toy_data: Data) -> None:
    before = weights_of(mlp())
    assert torch.equal(trained(toy_data, Recipe(steps=0, lr=1.0)), before)


def test_a_split_smaller_than_a_batch(toy_data: Data) -> None:
    epochs: list[int] = []
    model = mlp()
    few = Split(toy_data.train.inputs[:5], toy_data.train.labels[:5])
    fit(model, few, Recipe(4, 0.1, batch_size=128), seeded(0), on_epoch=lambda epoch, loss: epochs.append(epoch))
    assert epochs == [1, 2, 3, 4]


def test_every_image_once_an_epoch_but_the_last_short_batch() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs[:, 0])
            return super().forward(inputs)

    split = Split(torch.arange(10.0).reshape(10, 1), torch.zeros(10, dtype=torch.int64))
    fit(Spy(1, 2), split, Recipe(6, 1e-9, batch_size=3), seeded(0))
    assert [len(batch) for batch in seen] == [3] * 6
    for epoch in (seen[:3], seen[3:]):
        assert len(set(torch.cat(epoch).tolist())) == 9
    assert not torch.equal(seen[0], seen[3])


def test_the_mean_loss_of_the_last_epoch_begun(toy_data: Data) -> None:
    reported: dict[int, float] = {}
    recipe = Recipe(steps=10, lr=1e-12, batch_size=60)  # nothing moves: the loss shows which batch it was
    model = mlp()
    mean = fit(
        model, toy_data.train, recipe, seeded(0), on_epoch=lambda epoch, mean: reported.update({epoch: mean.loss})
    )
    generator = seeded(0)
    orders = [torch.randperm(240, generator=generator) for _ in range(3)]
    every = F.cross_entropy(toy_data.train.scores(model), toy_data.train.labels, reduction="none")
    assert reported == pytest.approx({1: every.mean().item(), 2: every.mean().item()}, rel=1e-5)
    assert mean == pytest.approx(every[orders[2][:120]].mean().item(), rel=1e-5)


@pytest.mark.parametrize(("steps", "reported_at"), [(5, 5), (20, 8)])  # within the first epoch, and at its end
def test_divergence_is_reported(toy_data: Data, steps: int, reported_at: int) -> None:
    with pytest.raises(DivergedError, match=rf"training loss became (nan|inf) within {reported_at} steps at lr 1e\+30"):
        fit(mlp(), toy_data.train, Recipe(steps, 1e30, batch_size=30), seeded(0))


# Distillation


@pytest.mark.parametrize(("share", "t"), [(0.3, 4.0), (1.0, 2.0), (0.5, 1.0)])
def test_the_distillation_loss(toy_data: Data, share: float, t: float) -> None:
    inputs, labels = toy_data.train
    teacher = torch.randn(240, 4, generator=seeded(1))
    model = mlp()
    scores = model(as_float(inputs)).detach()
    hard = -sum(scores[i].log_softmax(0)[labels[i]] for i in range(240)) / 240
    p, q = (teacher / t).softmax(1), (scores / t).softmax(1)
    soft = (p * (p.log() - q.log())).sum() / 240
    recipe = Recipe(steps=1, lr=0.1, batch_size=240, distill=share, temperature=t)
    loss = fit(model, toy_data.train, recipe, seeded(0), teacher=teacher)
    assert loss == pytest.approx(float((1 - share) * hard + share * t**2 * soft), rel=1e-4)


def test_a_teacher_alone_needs_no_labels(toy_data: Data) -> None:
    teacher = torch.randn(240, 4, generator=seeded(1))
    recipe = Recipe(steps=5, lr=0.1, distill=1.0)
    other = Data(Split(toy_data.train.inputs, 3 - toy_data.train.labels), toy_data.validation, toy_data.load_test)
    assert torch.allclose(trained(toy_data, recipe, teacher=teacher), trained(other, recipe, teacher=teacher))


def test_no_share_no_teacher(toy_data: Data) -> None:
    teacher = torch.randn(240, 4, generator=seeded(1))
    assert torch.equal(trained(toy_data, HARD, teacher=teacher), trained(toy_data, HARD))
    half = Recipe(steps=5, lr=0.1, distill=0.5)
    assert torch.equal(trained(toy_data, half), trained(toy_data, Recipe(steps=5, lr=0.1)))
