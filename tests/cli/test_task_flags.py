"""The flags of a task: what they reach, what files note of them, and what of it is believed."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from tasks_of_users import trained_regressor
from torch import Tensor
from toys import fault, images, mlp, seeded
from typer.main import get_command

from tune_prune.cli import main
from tune_prune.cli.prune import parse_distill
from tune_prune.common.flags import declared_settings
from tune_prune.pruning import checkpoint, checkpoint_data
from tune_prune.results import conf
from tune_prune.tasks.settings import MEASURING, SEARCHING, TaskSettings
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

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
    unused = {"train": {"distill", *SEARCHING}, "search": set()}.get(name, {*SEARCHING})
    wanted = set(MEASURING if name in measured else declared_settings(TaskSettings)) - unused
    params = get_command(main.app).commands[name].params  # type: ignore[attr-defined]
    assert wanted <= {param.name for param in params}


def train(run: Command, *words: object) -> dict[str, Tensor]:
    assert run("train", "--out", "a.safetensors", "--epochs", 1, *words) == 0
    return checkpoint.read(Path("a.safetensors")).weights


def test_augmentation_without_a_name_is_what_the_switch_of_train_was(run: Command) -> None:
    toy = ("--model", "toys:mlp", "--data", "toys:images", "--batch-size", 40)
    found = {words: train(run, *toy, *words) for words in ((), ("--augment",), ("--augment", "affine"))}
    torch.manual_seed(0)
    model = mlp()
    recipe = Recipe(6, 0.05, weight_decay=5e-4, batch_size=40, warmup=0.05, augment=True)
    fit(model, images().train, recipe, seeded(0))
    switch = model.state_dict()
    for words, weights in found.items():
        assert all(torch.equal(weight, switch[key]) for key, weight in weights.items()) == ("--augment" in words)
    flipped = train(run, *toy, "--augment", "flip")
    assert not torch.equal(flipped["1.weight"], switch["1.weight"])


def test_augmentation_of_a_task_of_ones_own(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    toy = ("--model", "toys:mlp", "--data", "toys:images", "--loss", "torch.nn:CrossEntropyLoss")
    plain, distorted = train(run, *toy), train(run, *toy, "--augment")
    assert not torch.equal(plain["1.weight"], distorted["1.weight"])
    assert checkpoint.read(Path("a.safetensors")).notes["task"]["augment"] == "affine"
    assert run("train", *MODEL, *DATA, *TASK, "--augment", "--epochs", 1, "--out", "b.safetensors") == 2
    said = capsys.readouterr().err
    assert said.startswith("tune-prune: augment 'affine' fails at augment.py:")
    assert said.count("\n") == 1


def test_a_model_is_measured_on_so_many_samples_at_a_time(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    run(*PRUNE)
    task = (*MODEL, "--data", "tasks_of_users:rows", *TASK[:2], "--metric", "tasks_of_users:batch_count", "--json")
    for words in (("test", "out/pruned.safetensors"), ("export", "out/pruned.safetensors", "--to", "sparse")):
        for size, batches in (((), 1), (("--batch-size", 10), 7)):  # of 64 rows
            capsys.readouterr()
            assert run(*words, *task, *size) == 0
            assert json.loads(capsys.readouterr().out)["test_batch_count"] == batches


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
    assert said in fault(lambda: checkpoint_data.choose_settings(path, TaskSettings()))


def test_what_trains_is_not_asked_for_where_nothing_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    noted = {"optimizer": "mine:optimizer", "precision": "tf32", "better": "higher", "metric": "mine:f1", "future": 3}
    checkpoint.write(path, "tasks_of_users:trained_regressor", trained_regressor(), {}, {"task": noted})
    chosen = checkpoint_data.choose_settings(path, TaskSettings(metric="mine:f1"))
    assert chosen == TaskSettings(precision="tf32", better="higher", metric="mine:f1")
    other = checkpoint_data.choose_settings(path, TaskSettings(metric="mine:loss"))
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
