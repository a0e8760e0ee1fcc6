"""The flags of a task: what they reach, what files note of them, and what of it is believed."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tasks_of_users import trained_regressor
from toys import fault
from typer.main import get_command

from tune_prune.cli import main
from tune_prune.cli.prune import parse_distill
from tune_prune.common.flags import declared_settings
from tune_prune.pruning import checkpoint
from tune_prune.results import conf
from tune_prune.tasks.settings import MEASURING, TaskSettings

Command = Callable[..., int]
MODEL = ("--model", "tasks_of_users:trained_regressor")
DATA = ("--data", "tasks_of_users:loaders")
TASK = ("--loss", "tasks_of_users:mean_squared", "--metric", "tasks_of_users:rmse")
NOTED = {"loss": "tasks_of_users:mean_squared", "metric": "tasks_of_users:rmse"}
PRUNE = ("prune", *MODEL, *DATA, *TASK, "-l", "net.0", "-p", 0.5, "--out", "out")


@pytest.fixture
def run(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNE_PRUNE_NO_CODE", "")  # --no-code sets it
    return command


@pytest.mark.parametrize("name", ["search", "train", "prune", "sensitivity", "test", "export"])
def test_every_setting_that_a_command_uses_is_a_flag(name: str) -> None:
    measured = ("test", "export")
    unused = {"distill"} if name == "train" else set()
    wanted = set(MEASURING if name in measured else declared_settings(TaskSettings)) - unused
    params = get_command(main.app).commands[name].params  # type: ignore[attr-defined]
    assert wanted <= {param.name for param in params}


def test_a_pruning_of_ones_own_task_is_noted_and_replayed(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*PRUNE, "--distill", 0.25, "--retrain", "--batch-size", 16, "--optimizer", "torch.optim:AdamW", "--json")
    assert run(*words) == 0
    summary = json.loads(capsys.readouterr().out)
    notes = conf.read(Path("out/pruned.conf")).notes
    assert notes["task"] == NOTED | {"optimizer": "torch.optim:AdamW"}
    assert (notes["distill"], notes["batch_size"]) == (0.25, 16)
    assert checkpoint.read(Path("out/pruned.safetensors")).notes["task"] == notes["task"]
    assert run("prune", "--conf", "out/pruned.conf", "--replay", "--json") == 0
    assert json.loads(capsys.readouterr().out)["agrees"]
    words = ("test", "out/pruned.safetensors", *MODEL, *DATA, *TASK, "--json")
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out)["test_rmse"] == summary["test_rmse"]


def test_code_that_a_checkpoint_notes_has_to_be_named(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    run(*PRUNE, "--better", "lower", "--precision", "fp32", "--optimizer", "torch.optim:AdamW")
    capsys.readouterr()
    path = "out/pruned.safetensors"
    for words in (("test", path), ("export", path, "--to", "safetensors")):
        assert run(*words, *MODEL, *DATA) == 2
        said = f"tune-prune: {path}: its loss, metric is code; if you trust it, add {' '.join(TASK)}\n"
        assert capsys.readouterr().err == said
        assert run(*words, *MODEL, *DATA, *TASK[:2]) == 2
        said = f"tune-prune: {path}: its metric is code; if you trust it, add {' '.join(TASK[2:])}\n"
        assert capsys.readouterr().err == said
    assert run("test", path, *MODEL, *DATA, *TASK[:2], "--metric", "tasks_of_users:closeness") == 0
    assert run("test", path, *MODEL, *DATA, *TASK, "--no-code") == 2
    assert "which --no-code refuses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("noted", "said"),
    [
        (3, "a.safetensors: task must be a table of loss"),
        ({"loss": 3}, "a.safetensors: task.loss must be an address, package.module:function, got 3"),
        ({"better": "up"}, "a.safetensors: task.better must be lower or higher, got 'up'"),
        (
            {"loss": "tune_prune.tasks.in_memory:function(key='0123')"},
            "a.safetensors: its loss came from Python as an object; name it with --loss",
        ),
    ],
)
def test_notes_that_make_no_sense(tmp_path: Path, noted: object, said: str) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, "tasks_of_users:trained_regressor", trained_regressor(), {}, {"task": noted})
    assert said in fault(lambda: checkpoint.choose_settings(path, TaskSettings()))


def test_what_trains_is_not_asked_for_where_nothing_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    noted = {"optimizer": "mine:optimizer", "precision": "tf32", "better": "higher", "metric": "mine:f1", "future": 3}
    checkpoint.write(path, "tasks_of_users:trained_regressor", trained_regressor(), {}, {"task": noted})
    chosen = checkpoint.choose_settings(path, TaskSettings(metric="mine:f1"))
    assert chosen == TaskSettings(precision="tf32", better="higher", metric="mine:f1")
    other = checkpoint.choose_settings(path, TaskSettings(metric="mine:loss"))
    assert other == TaskSettings(precision="tf32", metric="mine:loss")


def test_a_share_or_a_function_that_distils() -> None:
    assert parse_distill("0.25") == (0.25, None)
    assert parse_distill("mine:distill") == (0.5, "mine:distill")
    for text in ("1.5", "nan", "half", "-1"):
        rule = "--distill must be a share in [0, 1], or an address, package.module:function"
        assert fault(lambda text=text: parse_distill(text)) == f"{rule}; got {text!r}"


def test_a_training_of_ones_own_task_is_noted(run: Command) -> None:
    assert run("train", *MODEL, *DATA, *TASK, "--epochs", 1, "--lr", 0.001, "--out", "a.safetensors") == 0
    assert checkpoint.read(Path("a.safetensors")).notes["task"] == NOTED


def test_a_training_loop_that_returns_no_loss_is_shown_without_one(
    run: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ("--fit", "tasks_of_users:train_silently")
    assert run("train", *MODEL, *DATA, *TASK, *fit, "--epochs", 2, "--lr", 0.001, "--out", "a.safetensors") == 0
    assert capsys.readouterr().out.startswith("epoch   2/2  validation rmse 0.")


def test_what_another_loss_measured_is_measured_anew(run: Command) -> None:
    words = ("sensitivity", *MODEL, *DATA, "-p", 0.5, "-l", "net.0", "--out", "out")
    for count, task in ((1, TASK), (1, TASK), (2, ("--loss", "tasks_of_users:smooth_absolute", *TASK[2:]))):
        assert run(*words, *task) == 0
        table = pd.read_csv("out/sensitivity.csv")
        assert len(table) == count
    assert table["splits"].nunique() == 1
    assert table["code"].nunique() == 2
