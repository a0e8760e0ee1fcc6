import pytest
import torch
from toys import ended

from tune_prune.pruning import masks
from tune_prune.results.front import Member
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task
from tune_prune.workflows.sensitivity import find_hardest_layer

CPU = torch.device("cpu")


def member(ratios: dict[str, float]) -> Member:
    record = ended(0, (0.5, 60.0))
    record.points[0].ratios.clear()
    record.points[0].ratios.update(ratios)
    record.pruners.update(dict.fromkeys(ratios, "mag"))
    return Member("001", record, record.last)


def loss_of(task: Task, label: str, ratio: float) -> float:
    model = task.dense_model(CPU)
    mask = masks.dense_masks(model)
    mask[label] = masks.shrink(mask[label], masks.prunable(model)[label].abs(), ratio)
    masks.apply(model, mask)
    return evaluate(model, task.validation).loss


@pytest.mark.parametrize("ratios", [{"2": 0.1, "4": 0.9}, {"2": 0.95, "4": 0.1}, {"2": 0.9, "4": 0.9}])
def test_the_layer_whose_loss_is_highest_alone(toy_task: Task, ratios: dict[str, float]) -> None:
    found = find_hardest_layer(toy_task, member(ratios), CPU)
    assert found is not None
    losses = {label: loss_of(toy_task, label, ratio) for label, ratio in ratios.items()}
    assert found.job.layer == max(losses, key=losses.__getitem__)
    assert found.val_loss == pytest.approx(max(losses.values()), rel=1e-5)


def test_no_layer_is_pruned(toy_task: Task) -> None:
    assert find_hardest_layer(toy_task, member({"2": 0.0, "4": 0.0}), CPU) is None
