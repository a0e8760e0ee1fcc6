"""Training on batches: what a step is, and that both kinds of split are trained alike."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import fault, images, mlp, seeded

from tune_prune.pruning import masks
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Items, Loader, Rows
from tune_prune.tasks.splits import AnySplit, Split
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe
from tune_prune.training.step import clip_gradients

RECIPE = Recipe(7, 0.1, batch_size=60, weight_decay=0.01)


def kinds(**settings: Any) -> list[AnySplit]:
    """The toys' training images as both kinds of split, with these settings."""
    objective, train = make_objective(TaskSettings(**settings)), images().train
    rows = Rows((train.inputs, train.labels))
    return [Split(train.inputs, train.labels, objective=objective), BatchSplit(rows, objective, "toys")]


def trained(split: AnySplit, recipe: Recipe, pairs: bool = False) -> Tensor:
    torch.manual_seed(0)
    model = mlp()
    found = {label: (weight > -0.05).float() for label, weight in masks.prunable(model).items()}
    masks.apply(model, found)
    fit(model, split, recipe, seeded(3), masks=masks.pairs(model, found) if pairs else ())
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize(
    "more",
    [{}, {"clip": 0.1}, {"accumulate": 2}, {"label_smoothing": 0.3}, {"lr_schedule": "step"}, {"l1": 0.01}],
)
def test_both_kinds_of_split_are_trained_alike(more: dict[str, Any]) -> None:
    recipe = replace(RECIPE, **more)
    one, other = (trained(split, recipe, pairs=True) for split in kinds())
    assert torch.allclose(one, other, atol=1e-6)
    assert not more or not torch.allclose(one, trained(kinds()[0], RECIPE, pairs=True), atol=1e-4)


@pytest.mark.parametrize("kind", [0, 1])
def test_accumulated_batches_are_one_large_batch(kind: int) -> None:
    split = kinds()[kind]
    large = trained(split, replace(RECIPE, batch_size=120))
    for size, count in ((60, 2), (40, 3)):
        assert torch.allclose(trained(split, replace(RECIPE, batch_size=size, accumulate=count)), large, atol=1e-6)


@pytest.mark.parametrize("kind", [0, 1])
def test_more_accumulated_batches_than_an_epoch_has_are_the_whole_epoch(kind: int) -> None:
    split = kinds()[kind]
    whole = trained(split, replace(RECIPE, batch_size=240))
    assert torch.allclose(trained(split, replace(RECIPE, batch_size=60, accumulate=9)), whole, atol=1e-6)


def test_batches_of_unequal_size_in_memory_count_by_their_size() -> None:
    split = kinds()[0]
    accumulated = trained(split, replace(RECIPE, batch_size=100, accumulate=3))  # 100 + 100 + 40
    assert torch.allclose(accumulated, trained(split, replace(RECIPE, batch_size=240)), atol=1e-6)


def test_an_epoch_counts_steps() -> None:
    for split in kinds():
        epochs: list[int] = []
        recipe = replace(RECIPE, steps=6, accumulate=2)
        fit(mlp(), split, recipe, seeded(0), on_epoch=lambda epoch, measured: epochs.append(epoch))  # noqa: B023
        assert epochs == [1, 2, 3]  # of two steps of two batches of 60


def test_gradients_are_clipped_without_those_of_removed_weights() -> None:
    weight, bias = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))
    weight.grad, bias.grad = torch.tensor([3.0, 100.0, 0.0, 0.0]), torch.tensor([4.0, 0.0])
    clip_gradients([weight, bias], [(weight, torch.tensor([1.0, 0.0, 1.0, 1.0]))], 1.0)
    assert torch.allclose(weight.grad, torch.tensor([0.6, 0.0, 0.0, 0.0]), atol=1e-5)
    assert torch.allclose(bias.grad, torch.tensor([0.8, 0.0]), atol=1e-5)
    clip_gradients([weight, bias], [], 2.0)
    assert torch.allclose(weight.grad, torch.tensor([0.6, 0.0, 0.0, 0.0]), atol=1e-5)  # small enough already


def test_label_smoothing_is_that_of_torch() -> None:
    split, model = kinds()[1], mlp()
    batch = next(split.batches(50))
    expected = nn.functional.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.2)
    found = split.objective.training_loss(model, None, batch, 0.0, 1.0, 0.2)
    assert torch.equal(found, expected)
    assert not torch.equal(split.loss(model, batch), found)  # which is measured without


def test_label_smoothing_of_an_own_loss_is_refused() -> None:
    rows = torch.zeros(8, 3)
    split = BatchSplit(Rows((rows, rows[:, :1])), make_objective(TaskSettings(loss="tasks_of_users:mean_squared")))
    said = fault(lambda: fit(nn.Linear(3, 1), split, replace(RECIPE, label_smoothing=0.1), seeded(0)))
    assert said.startswith("label_smoothing is of cross-entropy; loss 'tasks_of_users:mean_squared'")


# Precision


class Seen(nn.Module):
    """Notes the type of its products, and whether gradients are on."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.seen = nn.Linear(64, 4), set[tuple[torch.dtype, str, bool]]()

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.head(inputs.flatten(1))
        self.seen.add((scores.dtype, torch.get_float32_matmul_precision(), self.training))
        return scores


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(
    ("precision", "dtype", "products"),
    [
        (None, torch.float32, "highest"),
        ("fp32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bf16", torch.bfloat16, "highest"),
    ],
)
def test_training_and_evaluation_compute_in_the_precision(
    kind: int, precision: str | None, dtype: torch.dtype, products: str
) -> None:
    split, model = kinds(precision=precision)[kind], Seen()
    fit(model, split, RECIPE, seeded(0))
    evaluate(model, split)
    assert model.seen == {(dtype, products, True), (dtype, products, False)}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("kind", [0, 1])
def test_bf16_trains_nearly_alike(kind: int) -> None:
    exact, rounded = (trained(kinds(precision=precision)[kind], RECIPE) for precision in ("fp32", "bf16"))
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.02)


def test_a_sampler_that_weighs_samples_comes_with_the_data() -> None:
    train = images().train
    weights = (train.labels == 2).float() + 1e-6
    sampler = torch.utils.data.WeightedRandomSampler(weights.tolist(), 64)
    pairs = torch.utils.data.TensorDataset(train.inputs, train.labels)
    loader = torch.utils.data.DataLoader(pairs, batch_size=16, sampler=sampler)
    seen: list[Tensor] = []

    class Labels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs)
            return self.head(inputs.flatten(1))

    split = BatchSplit(Loader.read(loader, "the data"), make_objective(TaskSettings()), "toys")
    model = Labels()
    fit(model, split, replace(RECIPE, steps=4), seeded(0))
    wanted = {row.tobytes() for row in (train.inputs[train.labels == 2].float() / 255).numpy()}
    found = [row.tobytes() for batch in seen for row in batch.numpy()]
    assert len(found) == 64
    assert sum(row in wanted for row in found) >= 62
    first = copy.deepcopy(found)
    seen.clear()
    fit(model, split, replace(RECIPE, steps=4), seeded(0))
    assert [row.tobytes() for batch in seen for row in batch.numpy()] == first  # the generator decides


def test_a_data_set_is_read_anew_in_every_epoch() -> None:
    train = images().train
    read: list[int] = []

    class Noted(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
            read.append(at)
            return train.inputs[at].float() + torch.rand(()), train.labels[at]

    split = BatchSplit(Items(Noted()), make_objective(TaskSettings()), "toys")
    fit(mlp(), split, replace(RECIPE, steps=8, batch_size=10), seeded(0))
    assert sorted(read) == sorted(2 * list(range(40)))
