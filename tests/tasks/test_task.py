from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import Conv, fault, images, mlp

from tune_prune.pruning import checkpoint
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import Evaluation, evaluate
from tune_prune.tasks.models import models
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import Data, Split
from tune_prune.tasks.task import Task, check_compatible, check_trained, prepare_task
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

CPU = torch.device("cpu")


def prepared(name: str, data: str, weights: str | None) -> tuple[Task, Callable[[], Split]]:
    return prepare_task(name, load_dense_model(name, weights, "a.toml: task."), data, CPU)


def guarded() -> Data:
    """Data whose test images may not be read."""
    data = images()

    def refuse() -> Split:
        raise AssertionError("the test images were read")

    return Data(data.train, data.validation, refuse)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of dense weights."""
    torch.manual_seed(8)
    checkpoint.write(tmp_path / "dense.safetensors", "toys:Conv", Conv(), {})
    return tmp_path / "dense.safetensors"


def test_a_task(weights: Path) -> None:
    task, load_test = prepared("toys:Conv", "test_task:guarded", str(weights))
    data, model = images(), task.dense_model(CPU)
    assert all(torch.equal(value, checkpoint.read(weights).weights[key]) for key, value in model.state_dict().items())
    assert torch.equal(task.train.inputs, data.train.inputs)
    assert torch.equal(task.validation.labels, data.validation.labels)
    assert torch.equal(task.teacher, data.train.scores(model))
    assert task.dense == evaluate(model, data.validation)
    with pytest.raises(AssertionError, match="were read"):
        load_test()


def test_the_dense_model_is_a_fresh_one_each_time(weights: Path) -> None:
    task, _ = prepared("toys:Conv", "toys:images", str(weights))
    with torch.no_grad():
        for parameter in task.dense_model(CPU).parameters():
            parameter.zero_()
    assert evaluate(task.dense_model(CPU), task.validation) == task.dense


def loop(model: nn.Module, batches: object, steps: int, lr: float, after_step: Callable[[], None]) -> None:
    after_step()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_training_loop_of_the_users_is_taught_by_the_dense_model(weights: Path, share: float) -> None:
    dense, settings = load_dense_model("toys:Conv", str(weights), "a.toml: task."), TaskSettings(fit="test_task:loop")
    task, _ = prepare_task("toys:Conv", dense, "toys:images", CPU, settings=settings)
    teacher = task.make_teacher(share)
    assert isinstance(teacher, nn.Module)
    assert evaluate(teacher, task.validation) == task.dense
    fit(task.dense_model(CPU), task.train, Recipe(1, 0.1), torch.Generator(), teacher=teacher)


def test_a_convolution_is_in_channels_last(weights: Path) -> None:
    model = prepared("toys:Conv", "toys:images", str(weights))[0].dense_model(CPU)
    weight = next(iter(model.children()))[4].weight  # type: ignore[index]
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_users_model_comes_as_its_factory_made_it() -> None:
    made = load_dense_model("toys:mlp", None, "a.toml: task.")
    assert [tuple(p.shape) for p in made.parameters()] == [tuple(p.shape) for p in mlp().parameters()]


def test_weights_that_a_factory_draws_are_the_same_in_every_process() -> None:
    first = load_dense_model("toys:mlp", None, "a.toml: task.").state_dict()
    torch.rand(7)
    again = load_dense_model("toys:mlp", None, "a.toml: task.").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())


def test_built_in_weights() -> None:
    assert isinstance(load_dense_model("lenet5", None, "a.toml: task."), nn.Sequential)


def test_a_built_in_model_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models._entries, "toy", mlp)
    said = fault(lambda: load_dense_model("toy", None, "a.toml: task."))
    assert said == "a.toml: task.model: 'toy' has no pretrained weights; give a.toml: task.weights, a checkpoint"


def test_weights_that_do_not_fit(weights: Path) -> None:
    said = fault(lambda: load_dense_model("toys:mlp", str(weights), "a.toml: task."))
    assert said.startswith(f"a.toml: task.weights: {weights}: does not fit the model; made for 'toys:Conv'")
    assert "no such checkpoint" in fault(lambda: load_dense_model("toys:mlp", "none.safetensors", "a.toml: task."))


class Odd(nn.Module):
    """Returns outputs of another shape than class scores."""

    def __init__(self, shape: tuple[int, ...] = (), outputs: int = 4) -> None:
        super().__init__()
        self.layer, self._shape = nn.Linear(64, outputs), shape

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.layer(inputs.flatten(1))
        return scores.reshape(self._shape) if self._shape else scores


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "torch.nn:Linear(in_features=3, out_features=4)",
            "fails on training inputs of 'toys:images', [2, 1, 8, 8] (Runtime",
        ),
        ("test_task:Odd(shape=(8,))", "must return class scores [n, classes]; of 2 inputs it made [8]"),
        ("test_task:Odd(shape=(1, 8))", "must return class scores [n, classes]; of 2 inputs it made [1, 8]"),
    ],
)
def test_a_model_that_returns_no_class_scores(model: str, said: str) -> None:
    assert f"model {model!r} {said}" in fault(lambda: prepared(model, "toys:images", None))


def test_labels_beyond_the_outputs() -> None:
    said = fault(lambda: prepared("test_task:Odd(outputs=3)", "toys:images", None))
    assert said == "data 'toys:images' has training labels from 0 to 3; model 'test_task:Odd(outputs=3)' has 3 outputs"


def all_of_one() -> Data:
    data = images()
    return Data(data.train, Split(data.validation.inputs, torch.full_like(data.validation.labels, 2)), data.load_test)


def test_a_split_of_one_class(weights: Path) -> None:
    said = fault(lambda: prepared("toys:Conv", "test_task:all_of_one", str(weights)))
    assert said == "data 'test_task:all_of_one': all validation labels are 2; give images of several classes"


def larger_test_images() -> Data:
    data = images()
    return Data(data.train, data.validation, lambda: Split(torch.zeros(3, 1, 9, 9), torch.arange(3)))


def fifth_class_in_test() -> Data:
    data = images()
    return Data(data.train, data.validation, lambda: Split(torch.zeros(5, 1, 8, 8), torch.arange(5)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            "test_task:larger_test_images",
            "model 'toys:mlp' fails on test inputs of 'test_task:larger_test_images', [2, 1, 9, 9] (RuntimeError: ",
        ),
        (
            "test_task:fifth_class_in_test",
            "data 'test_task:fifth_class_in_test' has test labels from 0 to 4; model 'toys:mlp' has 4 outputs",
        ),
    ],
)
def test_test_images_that_do_not_fit(data: str, said: str) -> None:
    loaded = load_data(data)
    check_compatible("toys:mlp", mlp(), loaded, CPU, check_test=False)
    assert fault(lambda: check_compatible("toys:mlp", mlp(), loaded, CPU, check_test=True)).startswith(said)


def of_shares(*counts: int) -> Split:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return Split(torch.zeros(len(labels), 1), labels)


@pytest.mark.parametrize(
    ("counts", "error", "refused"),
    [
        ([1000] * 10, 100.0, True),
        ([1000] * 10, 83.0, True),  # as an untrained network may have it
        ([1000] * 10, 80.0, False),
        ([12] * 10, 70.0, False),
        ([2, 2], 0.0, False),
        ([5, 5], 30.0, True),  # by luck, maybe
        ([5, 5], 20.0, False),
        ([9500, 500], 5.0, True),  # always 0
        ([9500, 500], 4.0, False),
    ],
)
def test_near_chance(counts: list[int], error: float, refused: bool) -> None:
    dense, split = Evaluation(error, 1.0), of_shares(*counts)
    check_trained("net", dense, split, force=True)
    if refused:
        chance = 100 * (1 - max(counts) / sum(counts))
        said = fault(lambda: check_trained("net", dense, split, force=False))
        assert said.startswith(f"model 'net' is near chance: {error:.2f} % validation error, and always answering 0 ")
        assert f"makes {chance:.2f} %; train it first" in said
    else:
        check_trained("net", dense, split, force=False)
