import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

TOY = ("--model", "toys:mlp", "--data", "toys:images")
ROOTS = Path(__file__).parents[1:3]
"""Where the toys and the package are."""


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_nothing_is_measured_twice(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("sensitivity", "--force", *TOY, "-l", 2, "-p", 0.5, "-p", 0.9) == 0
    assert "2 points, 0 of them measured already" in capsys.readouterr().out
    before = Path("sensitivity/sensitivity.csv").read_text()
    assert command("sensitivity", "--force", *TOY, "-p", 0.5, "--pruner", "mag,taylor2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"csv": "sensitivity.csv", "picture": "sensitivity.png", "points": 4}
    after = Path("sensitivity/sensitivity.csv").read_text()
    assert after.startswith(before)
    rows = pd.read_csv("sensitivity/sensitivity.csv")
    assert list(zip(rows["layer"], rows["pruner"], rows["ratio"], strict=True)) == [
        (2, "mag", 0.5), (2, "mag", 0.9), (4, "mag", 0.5), (2, "taylor2", 0.5), (4, "taylor2", 0.5)
    ]  # fmt: skip
    assert list(rows["kept"]) == [512, 102, 32, 512, 32]


DATA = """
import torch

def images():
    generator = torch.Generator().manual_seed({seed})
    return tuple((torch.rand(n, 1, 8, 8, generator=generator), torch.arange(n) % 4) for n in (80, 40, 40))
"""


def test_rows_of_other_data_are_not_taken_for_these(
    command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    flags = ("sensitivity", "--force", "--model", "toys:mlp", "-l", 2, "-p", 0.5, "--data")
    errors = []
    for name, seed in (("one_lab", 1), ("two_lab", 2), ("two_lab", 3), ("two_lab", 3)):
        Path(f"{name}.py").write_text(DATA.replace("{seed}", str(seed)))
        sys.modules.pop(name, None)
        assert command(*flags, f"{name}:images") == 0
        errors.append(capsys.readouterr().out)
    assert ["0 of them measured already" in out for out in errors] == [True, True, True, False]
    assert ["changed since its last row: splits" in out for out in errors] == [False, False, True, False]
    rows = pd.read_csv("sensitivity/sensitivity.csv")
    assert list(rows["data"]) == ["one_lab:images", "two_lab:images", "two_lab:images"]
    assert len(set(rows["splits"])) == len(set(rows["val_loss"])) == 3


def test_rows_of_another_code_of_a_pruner_are_not_taken_for_these(
    command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    flags = ("sensitivity", "--force", *TOY, "-l", 2, "-p", 0.5, "--pruner", "mag,pruner_lab:score")
    said = []
    for sign in ("", "-", "-"):
        Path("pruner_lab.py").write_text(f"def score(weight):\n    return {sign}weight.abs()\n")
        sys.modules.pop("pruner_lab", None)
        assert command(*flags) == 0
        said.append(capsys.readouterr().out)
    sys.modules.pop("pruner_lab")
    assert [text.partition(" of them measured already")[0][-1] for text in said] == ["0", "1", "2"]
    assert ["changed since its last row: pruner_code;" in text for text in said] == [False, True, False]
    rows = pd.read_csv("sensitivity/sensitivity.csv")
    assert list(rows["pruner"]) == ["mag", "pruner_lab:score", "pruner_lab:score"]
    assert rows["val_loss"][0] == rows["val_loss"][1] != rows["val_loss"][2]


def test_retraining_runs_on_ray(
    command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, ROOTS)))  # workers import the toys
    flags = ("-l", 2, "-p", 0.5, "-p", 0.9, "--retrain", "--epochs", 20, "--lr", 0.1)
    assert command("sensitivity", "--force", *TOY, *flags) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    head, *measured, _ = printed.out.splitlines()
    assert head.startswith("2 points, 0 of them measured already")
    assert sorted(line.partition(":")[0] for line in measured) == [f"layer 2, mag, ratio {p}" for p in (0.5, 0.9)]
    rows = pd.read_csv(tmp_path / "sensitivity/sensitivity.csv")
    assert sorted(rows["ratio"]) == [0.5, 0.9]
    assert set(rows["steps"]) == {20}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-l", 3), "--layer: layer 3 cannot be pruned; layers that can: 2, 4"),
        (("-p", 1.0), "--ratio must be in [0, 1), got 1"),
        (("--pruner", "mag,nix"), "unknown pruner 'nix'"),
    ],
)
def test_bad_input(command, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], said: str) -> None:
    assert command("sensitivity", "--force", *TOY, *arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not Path("sensitivity").exists()
