import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import mlp, seeded

from tune_prune.pruning import masks
from tune_prune.tasks.splits import Data
from tune_prune.training.optim import SGD, Recipe
from tune_prune.training.step import WARM_UP, RecordedStep, Recorder, Step, can_record, record_cuda_graph

RECIPE = Recipe(steps=6, lr=0.1, weight_decay=0.01, l1=1e-4, distill=0.5, batch_size=32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def on_the_cpu(run: Callable[[], None]) -> Callable[[], None]:
    """Stands in for `record_cuda_graph` on a CPU: runs as often before the recording, and returns a replay."""
    for _ in range(WARM_UP):
        run()
    return run


def stepped(model: nn.Module, data: Data, recorder: Recorder | None) -> list[tuple[float, float]]:
    """Runs six steps, recorded where a recorder is given; returns the loss and the share misclassified of each."""
    device = data.train.labels.device
    model.train()
    pairs = [(weight, (weight > -0.1).float()) for weight in masks.prunable(model).values()]
    teacher = torch.randn(len(data.train.labels), 4, generator=seeded(1)).to(device)
    sgd = SGD(model.parameters(), 0.9, 0.01)
    eager = Step(model, data.train, RECIPE, sgd, seeded(2), pairs, teacher, count_wrong=True)
    step = eager if recorder is None else RecordedStep(eager, 32, recorder)
    batches = torch.arange(192, device=device).split(32)
    results = [step(index, 0.1 / (number + 1)) for number, index in enumerate(batches)]
    return [(float(loss), float(wrong)) for loss, wrong in results]


@pytest.mark.parametrize(
    ("device", "recorder"),
    [
        ("cpu", on_the_cpu),
        pytest.param(
            *("cuda", record_cuda_graph),
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
        ),
    ],
)
def test_recorded_steps_are_the_same_steps(toy_data: Data, device: str, recorder: Recorder) -> None:
    ours = network()
    ours(toy_data.train.inputs[:2].float())  # so that the lazy layer knows its size
    copied = copy.deepcopy(ours).to(device)
    data = replace(toy_data, train=toy_data.train.to(torch.device(device)))
    runs = ((ours.to(device), recorder), (copied, None))
    results = [torch.tensor(stepped(model, data, how)) for model, how in runs]
    assert torch.allclose(*results, atol=1e-5)
    for (name, one), other in zip(ours.state_dict().items(), copied.state_dict().values(), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=1e-5), name


class Mine(nn.Sequential):
    """A user's module, which might look at its inputs."""


@pytest.mark.parametrize(
    ("model", "recipe", "device", "expected"),
    [
        (mlp(), RECIPE, "cuda", True),
        (mlp(), RECIPE, "cpu", False),
        (mlp(), Recipe(steps=6, lr=0.1, augment=True), "cuda", False),
        (mlp(), Recipe(steps=WARM_UP, lr=0.1), "cuda", False),
        (nn.Sequential(Mine(nn.Linear(2, 2))), RECIPE, "cuda", False),
    ],
)
def test_what_can_be_recorded(model: nn.Module, recipe: Recipe, device: str, expected: bool) -> None:
    assert can_record(model, recipe, torch.device(device)) == expected


def test_what_is_not_counted_is_not_a_number(toy_data: Data) -> None:
    model = mlp()
    step = Step(model, toy_data.train, Recipe(1, 0.1), SGD(model.parameters(), 0.0, 0.0), seeded(0))
    result = step(torch.arange(8), 0.1)
    assert result.wrong.isnan()
    assert not result.loss.requires_grad
