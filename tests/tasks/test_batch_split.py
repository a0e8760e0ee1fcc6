"""Splits of any task: what they read, what they compute, and what they say of a user's mistakes."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tasks_of_users import Regressor
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toys import Conv, fault, images, seeded

from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import Batch, count_samples
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.objective import CLASSIFICATION, make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Items, Joined, Loader, Rows, Source


def classification() -> BatchSplit:
    """The toys' validation images, as a split of any task."""
    split = images().validation
    return BatchSplit(Rows((split.inputs, split.labels)), CLASSIFICATION, "toys")


def sources() -> list[Source]:
    rows = torch.arange(50.0)[:, None]
    pairs = TensorDataset(rows, torch.arange(50))
    return [
        Rows((rows, torch.arange(50))),
        Items(pairs),
        Loader.read(DataLoader(pairs, batch_size=8), "the data"),
        Joined((Items(TensorDataset(rows[:20], torch.arange(20))), Rows((rows[20:], torch.arange(20, 50))))),
    ]


@pytest.mark.parametrize("number", range(4))
def test_every_source_yields_all_samples_in_order(number: int) -> None:
    source = sources()[number]
    batches = list(source.in_order(8))
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(50))
    assert all(torch.equal(rows[:, 0], labels.float()) for rows, labels in batches)
    assert source.count == 50


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_training_epoch_is_whole_batches_of_different_samples(number: int) -> None:
    source = sources()[number]
    batches = list(source.shuffled(8, seeded(1)))
    assert len(batches) == source.steps(8)
    assert {len(labels) for _, labels in batches} == {8}
    seen = torch.cat([labels for _, labels in batches]).tolist()
    assert len(set(seen)) == len(seen)
    assert seen != sorted(seen)
    again = torch.cat([labels for _, labels in source.shuffled(8, seeded(1))]).tolist()
    assert seen == again


def test_what_can_be_read_once_alone_is_refused() -> None:
    assert "can be iterated only once" in fault(lambda: Loader.read(iter([torch.zeros(3)]), "data 'x'"))
    assert "has no batch" in fault(lambda: Loader.read([], "data 'x'"))


def test_a_classification_is_measured_as_in_memory() -> None:
    model, split = Conv(), images().validation
    expected, found = evaluate(model, split), evaluate(model, classification())
    assert found.metric == expected.metric
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert classification().count_labels().tolist() == split.count_labels().tolist()


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        (torch.zeros(3, 2), 3),
        ((torch.zeros(4, 2), torch.zeros(4)), 4),
        ([torch.zeros(5, 2), torch.zeros(5)], 5),
        ({"input_ids": torch.zeros(6, 2)}, 6),
        (((torch.zeros(7, 1), torch.zeros(7, 2)), torch.zeros(7)), 7),
        (([torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)], [{"boxes": torch.zeros(5, 4)}, {}]), 2),
    ],
)
def test_samples_are_counted(batch: Batch, count: int) -> None:
    assert count_samples(batch) == count


class Named(nn.Module):
    """Takes keyword arguments, and returns a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 8), nn.Linear(8, 4)

    def forward(self, input_ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head((self.embedding(input_ids) * mask[..., None]).mean(1))}


def test_mappings_are_keyword_arguments_and_integers_stay_integers() -> None:
    batch = {
        "input_ids": torch.randint(11, (6, 5), generator=seeded(0)),
        "mask": torch.ones(6, 5),
        "labels": torch.randint(4, (6,), generator=seeded(1)),
    }
    split = BatchSplit(Rows(batch), CLASSIFICATION)
    model = Named()
    scores = model(batch["input_ids"], batch["mask"])["logits"]
    assert evaluate(model, split).loss == pytest.approx(F.cross_entropy(scores, batch["labels"]).item())


@dataclass
class Output:
    """What models of Hugging Face return."""

    loss: Tensor
    logits: Tensor


class Own(nn.Module):
    """Computes its own loss where it is given labels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Output:
        scores = self.head(features)
        return Output(2 * F.cross_entropy(scores, labels) if labels is not None else scores.sum(), scores)


def test_a_models_own_loss_is_taken() -> None:
    features, labels = torch.randn(6, 3, generator=seeded(0)), torch.arange(6) % 4
    model, split = Own(), BatchSplit(Rows({"features": features, "labels": labels}), CLASSIFICATION)
    expected = 2 * F.cross_entropy(model.head(features), labels).item()
    measured = evaluate(model, split)
    assert measured.loss == pytest.approx(expected)
    assert measured.metric == pytest.approx(100 * float((model.head(features).argmax(1) != labels).float().mean()))


def own_task(**settings: str) -> BatchSplit:
    rows = torch.randn(40, 3, generator=seeded(0))
    return BatchSplit(Rows((rows, rows.sum(1, keepdim=True))), make_objective(TaskSettings(**settings)), "rows")


def test_a_loss_and_a_metric_of_ones_own() -> None:
    split, model = own_task(loss="tasks_of_users:mean_squared", metric="tasks_of_users:rmse"), Regressor()
    measured = evaluate(model, split)
    inputs, wanted = next(split.batches(40))
    expected = F.mse_loss(model(inputs), wanted)
    assert split.objective.metric.name == "rmse"
    assert measured.metric == pytest.approx(expected.sqrt().item(), rel=1e-5)
    assert measured.loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "tasks_of_users:no_scalar"}, ["tasks_of_users.py:", "a tensor [40, 1]", "scalar"]),
        ({"loss": "tasks_of_users:no_gradient"}, ["tasks_of_users.py:", "without a gradient"]),
        ({"loss": "tasks_of_users:missing_key"}, ["tasks_of_users.py:", '`return batch["absent"]', "TypeError"]),
        ({"metric": "tasks_of_users:text"}, ["tasks_of_users.py:", "str", "must return a number"]),
    ],
)
def test_mistakes_name_the_function_and_its_line(settings: dict[str, str], words: list[str]) -> None:
    split, model = own_task(**{"loss": "tasks_of_users:mean_squared", **settings}), Regressor()
    said = fault(lambda: split.check(model, with_gradient=True))
    assert all(word in said for word in words), said


def test_a_batch_whose_keys_the_model_does_not_take() -> None:
    split = BatchSplit(Rows({"pixels": torch.zeros(4, 3), "labels": torch.zeros(4, dtype=torch.int64)}), CLASSIFICATION)
    assert "unexpected keyword argument 'pixels'" in fault(lambda: split.check(Named(), with_gradient=True))


def test_a_teacher_is_called_as_the_model_is() -> None:
    """By hand: KL divergence for class scores, squared distance for anything else."""
    batch = next(classification().batches(16))
    model, teacher = Conv().eval(), Conv().eval()
    found = CLASSIFICATION.training_loss(model, teacher, batch, 0.25, 3.0)
    hard = F.cross_entropy(model(batch[0]), batch[1])
    ours, theirs = F.log_softmax(model(batch[0]) / 3, 1), F.log_softmax(teacher(batch[0]) / 3, 1)
    soft = 9 * F.kl_div(ours, theirs, log_target=True, reduction="batchmean")
    assert found.item() == pytest.approx((0.75 * hard + 0.25 * soft).item(), rel=1e-5)

    split = own_task(loss="tasks_of_users:mean_squared")
    batch, model, teacher = next(split.batches(16)), Regressor(), Regressor()
    found = split.objective.training_loss(model, teacher, batch, 0.5, 3.0)
    expected = 0.5 * F.mse_loss(model(batch[0]), batch[1]) + 0.5 * F.mse_loss(model(batch[0]), teacher(batch[0]))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_sample_is_kept_and_always_the_same() -> None:
    split = classification()
    one, two = split.draw(40, seeded(3)), split.draw(40, seeded(3))
    assert one.count == two.count == 40
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one.batches(), two.batches(), strict=True))
    assert split.draw(10_000, seeded(3)).count <= split.count


def test_all_samples_in_memory_count_and_of_others_the_first() -> None:
    rows, labels = torch.arange(600.0)[:, None], torch.arange(600)
    later, first = rows.clone(), rows.clone()
    later[-1], first[0] = -1, -1

    def of(make: Callable[[Tensor], Source]) -> list[dict[str, str]]:
        return [BatchSplit(make(each), CLASSIFICATION).fingerprint() for each in (rows, rows.clone(), later, first)]

    one, same, changed_later, changed_first = of(lambda each: Rows((each, labels)))
    assert one == same
    assert len({each["samples"] for each in (one, changed_later, changed_first)}) == 3
    one, same, changed_later, changed_first = of(lambda each: Items(TensorDataset(each, labels)))
    assert one == same == changed_later != changed_first  # all of it may be more than there is memory for
