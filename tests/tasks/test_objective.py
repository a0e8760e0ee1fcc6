"""Losses of torch.nn by address or as objects: what they compute, how they are distilled, and mistakes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import fault, images, mlp

from tune_prune.tasks import in_memory
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.objective import Objective, make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Rows


def objective(loss: str) -> Objective:
    return make_objective(TaskSettings(loss=loss))


def batch() -> tuple[Tensor, Tensor]:
    split = images().validation
    return split.as_float(split.inputs), split.labels


WEIGHTS = [0.5, 1.0, 2.0, 7.0]


@pytest.mark.parametrize("as_object", [False, True])
def test_classes_have_weights(as_object: bool) -> None:
    inputs, labels = batch()
    weights = torch.tensor(WEIGHTS)
    address = f"torch.nn:CrossEntropyLoss(weight={WEIGHTS})"
    if as_object:
        address = in_memory.keep_function(nn.CrossEntropyLoss(weight=weights))
    model, made = mlp(), objective(address)
    expected = F.cross_entropy(model(inputs), labels, weight=weights)
    assert torch.equal(made.loss(model, (inputs, labels)), expected)
    assert not torch.allclose(expected, F.cross_entropy(model(inputs), labels))
    split = BatchSplit(Rows((inputs, labels)), made)
    assert evaluate(model, split).metric == evaluate(model, images().validation).metric


def test_other_arguments_stay_numbers() -> None:
    inputs, labels = batch()
    model, made = mlp(), objective("torch.nn:CrossEntropyLoss(label_smoothing=0.25)")
    assert torch.equal(made.loss(model, (inputs, labels)), F.cross_entropy(model(inputs), labels, label_smoothing=0.25))


def test_a_regression_by_a_loss_class() -> None:
    model, made = nn.Linear(3, 1), objective("torch.nn:HuberLoss(delta=0.5)")
    rows, wanted = torch.randn(6, 3), torch.randn(6, 1)
    assert torch.equal(made.loss(model, (rows, wanted)), F.huber_loss(model(rows), wanted, delta=0.5))


@pytest.mark.parametrize(("loss", "divergent"), [("CrossEntropyLoss", True), ("MSELoss", False)])
def test_class_scores_are_distilled_by_divergence_and_others_by_squares(loss: str, divergent: bool) -> None:
    model, teacher, made = mlp(), mlp(), objective(f"torch.nn:{loss}")
    inputs, labels = batch()
    targets = labels if divergent else torch.zeros(len(labels), 4)
    found = made.training_loss(model, teacher, (inputs, targets), 1.0, 3.0)
    ours, theirs = model(inputs), teacher(inputs)
    soft = F.kl_div(F.log_softmax(ours / 3, 1), F.log_softmax(theirs / 3, 1), log_target=True, reduction="batchmean")
    assert torch.allclose(found, 9 * soft if divergent else F.mse_loss(ours, theirs))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("torch.nn:CrossEntropyLoss(weights=[1.0])", "loss 'torch.nn:CrossEntropyLoss(weights=[1.0])' fails"),
        ("torch.nn:CrossEntropyLoss(reduction='none')", "returned a tensor [120]; it must return a scalar tensor"),
        ("torch.nn:CrossEntropyLoss(weight=[1.0])", "loss 'torch.nn:CrossEntropyLoss(weight=[1.0])' fails"),
    ],
)
def test_mistakes_are_named(loss: str, said: str) -> None:
    found = fault(lambda: objective(loss).loss(mlp(), batch()))
    assert said in found
    assert "\n" not in found
