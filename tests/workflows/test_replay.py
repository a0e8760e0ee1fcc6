import json
from pathlib import Path

import pytest
import torch
from toys import fault

from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.workflows.replay import Comparison, replay

TOY = ("--model", "toys:mlp", "--data", "toys:images")


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_layers_that_were_taken_back_and_a_start(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("train", *TOY, "--epochs", 30, "--out", "dense.safetensors")
    layers = ("-l", 2, "-p", 0.999, "-l", 4, "-p", 0.3)
    assert command("prune", *TOY, *layers, "--checkpoint", "dense.safetensors", "--acc-tradeoff", 5) == 0
    assert conf.read(Path("pruned/pruned.conf")).ratios["2"] == 0
    capsys.readouterr()
    assert command("prune", "--conf", "pruned/pruned.conf", "--replay", "--json") == 0
    assert json.loads(capsys.readouterr().out)["agrees"]


@pytest.mark.parametrize(
    "how", [(), ("--iterations", 3, "--retrain", "--epochs", 2, "--schedule", "cubic", "--l1", 1e-4, "--seed", 7)]
)
def test_what_prune_did_comes_out_again(
    command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: tuple[object, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("prune", *TOY, "-l", 2, "-p", 0.8, *how, "--json") == 0
    pruned = json.loads(capsys.readouterr().out)
    assert command("prune", "--conf", "pruned/pruned.conf", "--replay", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again.pop("agrees")
    assert {name: both["replayed"] for name, both in again.items()} == {name: pruned[name] for name in again}


def test_a_difference_is_shown(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("prune", *TOY, "-l", 2, "-p", 0.8)
    path = Path("pruned/pruned.conf")
    found = conf.read(path)
    conf.write(path, Conf(found.ratios, found.pruners, found.notes | {"val_error": 0.125}))
    capsys.readouterr()
    assert command("prune", "--conf", path, "--replay") == 0
    shown = capsys.readouterr().out
    assert "val_error: stated 0.125, replayed" in shown
    assert shown.count("<- differs") == 1


def test_a_conf_that_does_not_say_how_it_was_made(command, capsys: pytest.CaptureFixture[str]) -> None:
    said = fault(lambda: replay(Conf({"2": 0.5}, None, {"model": "lenet5"}), torch.device("cpu"), "a.conf"))
    assert said == "a.conf: cannot be replayed, it does not note its data; confs of a search or of prune do"
    notes = {"model": "lenet5", "data": "mnist", "seed": 0}
    assert "its trial or epochs" in fault(lambda: replay(Conf({"2": 0.5}, None, notes), torch.device("cpu"), "a.conf"))
    assert command("prune", "--replay") == 2
    assert "--replay without --conf" in capsys.readouterr().err


def test_what_is_not_stated_does_not_agree() -> None:
    assert not Comparison("val_error", None, 0.5).agrees
    assert Comparison("val_error", 0.5, 0.5).line() == "val_error: stated 0.5, replayed 0.5"
