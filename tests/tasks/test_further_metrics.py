"""Metrics beside the one that models are judged by: how they are named, loaded, checked and measured."""

from typing import Any

import pytest
import torch
from tasks_of_users import largest, rmse, rows, trained_regressor
from toys import fault, images, mlp

from tune_prune.common.import_path import NO_CODE
from tune_prune.tasks import in_memory
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.fingerprints import fingerprint_task
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import DEFAULT, TaskSettings, read_settings, split_addresses
from tune_prune.tasks.splits import Split


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("mine:f1", ("mine:f1",)),
        ("mine:f1,my.own:ece", ("mine:f1", "my.own:ece")),
        ("m:F(task='a', num_classes=3), mine:f1", ("m:F(task='a', num_classes=3)", "mine:f1")),
        ("a:b(c=(1, 2)),d:e(f=[3,4])", ("a:b(c=(1, 2))", "d:e(f=[3,4])")),
    ],
)
def test_addresses_are_split_at_the_commas_between_them(text: str, addresses: tuple[str, ...]) -> None:
    assert split_addresses(text, "--further-metrics") == addresses


@pytest.mark.parametrize("value", ["mine:f1", [], ["f1"], [3], 3])
def test_only_a_list_of_addresses_is_one(value: Any) -> None:
    said = fault(lambda: read_settings({"further_metrics": value}, "a.toml: task."))
    assert said.startswith("a.toml: task.further_metrics must be a list of addresses, package.module:function, got ")
    assert read_settings({"further_metrics": ["mine:f1"]}, "").given == {"further_metrics": ("mine:f1",)}


def test_they_are_measured_of_a_user_s_batches() -> None:
    settings = TaskSettings(metric="tasks_of_users:rmse", further_metrics=("tasks_of_users:largest",))
    model, split = trained_regressor().train(), load_data("tasks_of_users:rows", settings=settings).validation
    found = measure_further(model, split, "val")
    with torch.no_grad():
        assert found == {"val_largest": pytest.approx(largest(model, [rows()[1]]))}
    assert not model.training
    assert measure_further(mlp(), images().validation, "val") == {}


def test_the_default_task_stays_in_memory_with_them() -> None:
    def share_of_zeros(model: torch.nn.Module, batches: Any) -> float:
        return float(torch.cat([model(inputs).argmax(1) == 0 for inputs, _ in batches]).float().mean())

    settings = TaskSettings(further_metrics=(in_memory.keep_function(share_of_zeros),))
    split = load_data("toys:images", settings=settings).validation
    assert isinstance(split, Split)
    model = mlp()
    expected = images().validation.scores(model).argmax(1) == 0
    found = measure_further(model, split, "val")
    assert found == {"val_share_of_zeros": pytest.approx(float(expected.float().mean()))}


@pytest.mark.parametrize(
    ("metric", "further", "name"),
    [
        ("tasks_of_users:rmse", ("tasks_of_users:rmse",), "rmse"),
        (None, ("tasks_of_users:largest", in_memory.keep_function(largest)), "largest"),
    ],
)
def test_two_metrics_of_one_name_are_refused(metric: str | None, further: tuple[str, ...], name: str) -> None:
    said = fault(lambda: make_objective(TaskSettings(metric=metric, further_metrics=further)))
    assert said.endswith(f"another metric is called {name}, too")


def test_a_class_of_torchmetrics() -> None:
    pytest.importorskip("torchmetrics")
    settings = TaskSettings(
        loss="tasks_of_users:mean_squared",
        metric="tasks_of_users:rmse",
        further_metrics=("torchmetrics.regression:MeanSquaredError(squared=False)",),
    )
    model, split = trained_regressor(), load_data("tasks_of_users:rows", settings=settings).validation
    with torch.no_grad():
        expected = rmse(model, [rows()[1]])
    assert measure_further(model, split, "test") == {"test_mean_squared_error": pytest.approx(expected, rel=1e-5)}


def test_their_code_is_part_of_what_was_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(settings: TaskSettings) -> dict[str, str]:
        return fingerprint_task("toys:mlp", mlp(), None, {}, settings)

    ours = parts(TaskSettings(further_metrics=("tasks_of_users:rmse",)))
    assert "further_metrics code" in ours
    assert ours != parts(TaskSettings(further_metrics=("tasks_of_users:largest",)))
    assert "further_metrics code" not in parts(DEFAULT)
    monkeypatch.setenv(NO_CODE, "1")
    said = fault(lambda: make_objective(TaskSettings(further_metrics=("tasks_of_users:rmse",))))
    assert "'tasks_of_users:rmse' names code to be run, which --no-code refuses" in said


def test_one_that_fails_is_named() -> None:
    settings = TaskSettings(further_metrics=("tasks_of_users:text",))
    split = load_data("tasks_of_users:rows", settings=TaskSettings(metric="tasks_of_users:rmse", **settings.given))
    said = fault(lambda: measure_further(trained_regressor(), split.validation, "val"))
    assert "metric 'tasks_of_users:text'" in said
    assert said.endswith("returned str; it must return a number")
