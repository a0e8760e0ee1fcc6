"""The command line: what is wrong ends with exit code 2 and one line, before anything is written."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import mlp

import tune_prune
from tune_prune.cli import main
from tune_prune.hpo import run_files
from tune_prune.pruning import checkpoint
from tune_prune.tasks.splits import Data
from tune_prune.training.optim import Recipe
from tune_prune.workflows import preparation, train

SPACE = """
[task]
model = "toys:mlp"
data = "toys:images"
[space]
pruner = ["mag", "random"]
[space.ratio]
"2" = {low = 0.1, high = 0.9}
"4" = 0.5
[goal]
budget = 2
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Where the user's files are; not the working directory."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


@pytest.fixture
def refused(cwd: Path, command, capfd: pytest.CaptureFixture[str]):
    """What a command says that is refused."""

    def call(*arguments: str) -> str:
        assert command(*arguments) == 2
        _, err = capfd.readouterr()
        assert err.startswith("tune-prune: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert not list(cwd.rglob("*"))
        return err.removeprefix("tune-prune: ").rstrip("\n")

    return call


# The search


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--space", "lenet6"], r"unknown space 'lenet6'; did you mean lenet5\? known: .*lenet5.*, or a .toml file$"),
        (["--space", "none.toml"], r"none.toml: cannot read the space"),
        (["--budget", "0"], r"--budget must be at least 1 trial, got 0"),
        (["--budget", "-1"], r"--budget must be at least 1 trial, got -1"),
        (["--budget", "many"], r"'--budget'"),
        (["--acc-tradeoff", "-1"], r"--acc-tradeoff must be a number from 0, of errors at most 100 points, got -1"),
        (["--acc-tradeoff", "101"], r"--acc-tradeoff must be between 0 and 100 points, got 101"),
        (["--sampler", "grid"], r"--sampler must be one of tpe, nsga2, gp, random, got grid"),
        (["--pruners", "mag,magg"], r"unknown pruner 'magg'; did you mean mag\? known: mag, "),
        (["--pruners", ""], r"unknown pruner ''; known: mag, "),
        (["--pruners", "no_such_lab:score"], r"--pruners: 'no_such_lab:score': cannot import no_such_lab"),
        (["--seed", "-1"], r"--seed must be between 0 and 4294967295, got -1"),
        (["--device", "tpu"], r"--device must be one of auto, cpu, cuda, got tpu"),
        (["--gpus-per-trial", "99"], r"--gpus-per-trial 99: this machine has \d+; ask for at most that"),
        (["--max-concurrent", "0"], r"--max-concurrent must be at least 1, got 0"),
        (["--cpus-per-trial", "0"], r"--cpus-per-trial must be above 0, got 0"),
        (["--time-budget", "soon"], r"--time-budget must be a duration such as 90s, 15m or 1h30m, got 'soon'"),
        (["--time-budget", "0"], r"--time-budget must be a duration such as 90s, 15m or 1h30m, got '0'"),
        (["--resume", "none"], r"--resume .*none: no run was begun there \(run.json is missing\)"),
        (["--colour", "red"], r"No such option: --colour; tune-prune search --help lists all$"),
        (["--trials", "9"], r"No such option: --trials; did you mean --budget\? tune-prune search --help lists all$"),
        (["--n-trials=9"], r"No such option: --n-trials; did you mean --budget\? "),
        (["--timeout", "9"], r"No such option: --timeout; did you mean --time-budget\? "),
        (["--aug-mnt", "flip"], r"No such option: --aug-mnt; did you mean --augment\? "),
        (["--sampler", "tp"], r"--sampler must be one of tpe, nsga2, gp, random, got tp; did you mean tpe\?$"),
        (["--device", "gpu"], r"--device must be one of auto, cpu, cuda, got gpu; did you mean cuda\?$"),
        (["lenet5"], r"Got unexpected extra argument"),
    ],
)
def test_bad_flags_of_a_search(refused, flags: list[str], said: str) -> None:
    assert re.match(said, re.sub(r"^\S*/(?=none.toml)|^Invalid value for ", "", refused("search", *flags)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[goal]", "[goal]\ncolour = 1", "unknown key 'goal.colour'; known: acc_tradeoff, budget"),
        ("[space]", "[space]\nspeed = 1", "unknown key 'space.speed'; known: ratio, pruner"),
        ("[task]", "[tusk]", "unknown key 'tusk'; did you mean task? known: task, space"),
        ('"mag", "random"', '"mag", "magg"', "space.pruner: unknown pruner 'magg'; did you mean mag? known: mag"),
        ('"mag", "random"', '"mag", "no_lab:f"', "space.pruner: 'no_lab:f': cannot import no_lab"),
        ('"2" =', '"3" =', "space.ratio.'3' matches no layer of toys:mlp; layers that can be pruned: 2, 4"),
        ('"2" =', '"conv*" =', "space.ratio.'conv*' matches no layer of toys:mlp; layers that can be pruned: 2, 4"),
        ("low = 0.1", "low = 0.95", "space.ratio.'2': low 0.95 is above high 0.9; swap them"),
        ("high = 0.9", "high = 1.0", "space.ratio.'2'.high: must be a number in [0, 1), got 1.0"),
        ('"4" = 0.5', '"4" = -0.5', "space.ratio.'4': must be a number in [0, 1), got -0.5"),
        ("budget = 2", "budget = 0", "goal.budget must be a whole number in [1, inf), got 0"),
        ("budget = 2", 'budget = "two"', "goal.budget must be a whole number in [1, inf), got 'two'"),
        ("budget = 2", "budget = ", "not valid TOML: "),
        ("[task]", "[task]\nbudget = 1", "unknown key 'task.budget'; did you mean goal.budget? known: model, data"),
        (
            "low = 0.1",
            "min = 0.1",
            "space.ratio.'2': unknown key 'min'; did you mean low? known: low, high",
        ),
        (
            "high = 0.9",
            "max = 0.9",
            "space.ratio.'2': unknown key 'max'; did you mean high? known: low, high",
        ),
        ("toys:mlp", "lenet6", "task.model: unknown model 'lenet6'; did you mean lenet5? known: lenet5"),
        ("toys:mlp", "ResNet-18", "task.model: unknown model 'ResNet-18'; did you mean torchvision:resnet18? known: "),
        (
            "toys:images",
            "cifar10",
            "task.data: unknown data set 'cifar10'; did you mean torchvision:CIFAR10(root=",
        ),
        ("toys:mlp", "lenet5", "space.ratio.'2' matches no layer of lenet5; layers that can be pruned: 1, 4, 8"),
        ("toys:mlp", "toys:mlq", "task.model: 'toys:mlq': toys has no 'mlq'; nearest callables: mlp"),
        ("toys:mlp", "torch.nn:ReLU", "torch.nn:ReLU has no layer that can be pruned; tune_prune.register"),
        ("toys:mlp", "toys:mlp(n=3)", "task.model: model 'toys:mlp(n=3)' (toys.py:20) fails (TypeError: "),
        (
            "toys:images",
            "mnist",
            "model 'toys:mlp' fails on training inputs of 'mnist', [2, 1, 28, 28] (Runtime",
        ),
        ("toys:images", "mnits", "task.data: unknown data set 'mnits'; did you mean mnist? known: mnist"),
        ("toys:images", "toys:mlp", "task.data: data 'toys:mlp' must return (train, validation, test)"),
        (
            '"toys:images"',
            '"toys:images"\nweights = "none.safetensors"',
            "task.weights: none.safetensors: no such checkpoint",
        ),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_bad_spaces(refused, files: Path, old: str, new: str, said: str, dry: bool) -> None:
    assert SPACE.count(old) == 1
    (files / "toy.toml").write_text(SPACE.replace(old, new))
    line = refused("search", "--space", str(files / "toy.toml"), *(["--dry-run"] if dry else []))
    assert line.removeprefix(f"{files / 'toy.toml'}: ").startswith(said)


def test_a_space_that_is_no_text(refused, files: Path) -> None:
    (files / "toy.toml").write_bytes(b"\xff\xfe\x00")
    assert refused("search", "--space", str(files / "toy.toml")).startswith(f"{files / 'toy.toml'}: not a text file")


def test_a_space_that_begins_with_a_mark_of_its_encoding(
    cwd: Path, files: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "toy.toml").write_text(SPACE, encoding="utf-8-sig")
    assert command("search", "--space", files / "toy.toml", "--dry-run", "--force") == 0
    assert "ratio/4 = 0.5" in capsys.readouterr().out


@pytest.mark.parametrize("command_line", ["search --run-dir /proc/x/y", "prune -l 1 -p 0.5 --out /proc/x",
                                          "train --out /proc/x.safetensors"])  # fmt: skip
def test_a_folder_in_which_nothing_can_be_written(refused, monkeypatch: pytest.MonkeyPatch, command_line: str) -> None:
    """It is found before data is loaded: a system's own folder refuses even the administrator."""
    monkeypatch.setattr(preparation, "prepare_task", None)
    said = refused(*command_line.split())
    assert re.match(r"--(run-dir|out) /proc\S*: nothing can be written in /proc \(.+\); name another$", said)


def test_more_gpus_than_there_are(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert refused("search", "--gpus-per-trial", "3") == "--gpus-per-trial 3: this machine has 2; ask for at most that"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert refused("search", "--device", "cuda").startswith("--device cuda: this machine has no GPU")


def test_more_processors_than_there_are(refused, files: Path) -> None:
    (files / "toy.toml").write_text(SPACE)
    said = refused("search", "--space", str(files / "toy.toml"), "--cpus-per-trial", "9999")
    assert said.startswith("--cpus-per-trial 9999: this machine has ")


def test_a_run_directory_in_use(refused, files: Path) -> None:
    (files / "notes.txt").write_text("mine")
    said = refused("search", "--run-dir", str(files))
    assert said == f"--run-dir {files} exists already; name another, or go on with --resume {files}"
    assert [path.name for path in files.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--seed", "1"], "--seed"),
        (["--space", "lenet5"], "--space"),
        (["--run-dir", "x"], "--run-dir"),
        (["--pruners", "mag"], "--pruners"),
        (["--acc-tradeoff", "1"], "--acc-tradeoff"),
        (["--sampler", "tpe", "--seed", "0"], "--sampler, --seed"),
    ],
)
def test_what_cannot_change_on_resume(refused, files: Path, flags: list[str], named: str) -> None:
    (files / "toy.toml").write_text(SPACE)
    run_files.save_run(files / "run", *run_files.start_run(str(files / "toy.toml"), {}))
    before = sorted(files.rglob("*"))
    said = refused("search", "--resume", str(files / "run"), *flags)
    assert said == f"--resume goes on with the search as it was begun; leave out {named}"
    assert sorted(files.rglob("*")) == before


def test_a_run_that_an_earlier_version_began(refused, files: Path) -> None:
    (files / "toy.toml").write_text(SPACE)
    run_files.save_run(files / "run", *run_files.start_run(str(files / "toy.toml"), {}))
    old = json.loads((files / "run" / "run.json").read_text())
    del old["format"]
    (files / "run" / "run.json").write_text(json.dumps(old | {"finish": None}))
    before = {path: path.read_bytes() for path in (files / "run").iterdir()}
    said = refused("search", "--resume", str(files / "run"), "--budget", "9")
    assert said.startswith(f"--resume {files / 'run'}: another version of tune-prune began this run (run.json names no")
    assert said.endswith("; go on with the version that began it, or begin again with a new --run-dir")
    assert {path: path.read_bytes() for path in (files / "run").iterdir()} == before


def test_a_dry_run_writes_nothing(cwd: Path, files: Path, command, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "toy.toml").write_text(SPACE)
    assert command("--space", files / "toy.toml", "--dry-run", "--force", "--budget", 9, name="search") == 0
    out = capsys.readouterr().out
    assert out.startswith("toy: toys:mlp on toys:images, 9 trials, tradeoff 0.5 points\n")
    assert "ratio/2" in out
    assert "ratio/4 = 0.5" in out
    assert not list(cwd.iterdir())


def test_two_ratios_that_probably_mean_a_range(
    cwd: Path, files: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "toy.toml").write_text(SPACE.replace('"4" = 0.5', '"4" = [0.1, 0.8]\n"*" = [0.1, 0.2, 0.3]'))
    assert command("search", "--space", files / "toy.toml", "--dry-run", "--force") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(files))]
    assert said == [
        f"{files / 'toy.toml'}: space.ratio.'4' = [0.1, 0.8] chooses one of the two values; "
        "for all between them write {low = 0.1, high = 0.8}"
    ]


# One model

TOY = ("--model", "toys:mlp", "--data", "toys:images")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "lenet6"], "model 'lenet6' has no conf of its own"),
        (
            ["--model", "lenet6", "-l", "1", "-p", "0.5"],
            "--model: unknown model 'lenet6'; did you mean lenet5? k",
        ),
        ([*TOY], "model 'toys:mlp' has no conf of its own; give --conf FILE, or --layer and --ratio"),
        ([*TOY, "-l", "2"], "--layer and --ratio go in pairs, got 1 and 0"),
        ([*TOY, "-p", "0.5"], "--layer and --ratio go in pairs, got 0 and 1"),
        ([*TOY, "-l", "2", "-l", "4", "-p", "0.5"], "--layer and --ratio go in pairs, got 2 and 1"),
        ([*TOY, "-l", "2", "-l", "2", "-p", "0.5", "-p", "0.6"], "--layer 2 is named 2 times"),
        ([*TOY, "-l", "2", "-p", "0.5", "--conf", "a.conf"], "--conf and --layer exclude each other"),
        ([*TOY, "-l", "3", "-p", "0.5"], "--layer: layer 3 cannot be pruned; layers that can: 2, 4"),
        ([*TOY, "-l", "2", "-p", "1"], "--ratio must be in [0, 1), got 1 for layer 2"),
        ([*TOY, "-l", "2", "-p", "1.3"], "--ratio must be in [0, 1), got 1.3 for layer 2"),
        ([*TOY, "-l", "2", "-p", "-0.1"], "--ratio must be in [0, 1), got -0.1 for layer 2"),
        ([*TOY, "-l", "2", "-p", "nan"], "--ratio must be in [0, 1), got nan for layer 2"),
        ([*TOY, "-l", "2", "-p", "half"], "Invalid value for "),
        (
            [*TOY, "-l", "2", "-p", "0.5", "--pruner", "magg"],
            "--pruner: unknown pruner 'magg'; did you mean mag? kno",
        ),
        (
            [*TOY, "-l", "2", "-p", "0.5", "--schedule", "cubist"],
            "unknown schedule 'cubist'; did you mean cubic? known: linear, cubic, geometric, one-shot",
        ),
        ([*TOY, "-l", "2", "-p", "0.5", "--iterations", "0"], "Invalid value for '--iterations'"),
        ([*TOY, "-l", "2", "-p", "0.5", "--device", "tpu"], "--device must be one of auto, cpu, cuda, got tpu"),
        ([*TOY, "-l", "2", "-p", "0.5", "--epochs", "2"], "--epochs without --retrain; add --retrain"),
        ([*TOY, "-l", "2", "-p", "0.5", "--epochs", "0", "--retrain"], "--epochs must be above 0 with --retrain"),
        ([*TOY, "-l", "2", "-p", "0.5", "--epochs", "-1", "--retrain"], "--epochs must be above 0 with --retrain"),
        ([*TOY, "-l", "2", "-p", "0.5", "--epochs", "nan", "--retrain"], "--epochs must be above 0 with --retrain"),
        ([*TOY, "-l", "2", "-p", "0.5", "--checkpoint", "none.safetensors"], "none.safetensors: no such checkpoint"),
        (["--data", "mnits"], "--data: unknown data set 'mnits'; did you mean mnist? known: mnist"),
    ],
)
def test_bad_flags_of_prune(refused, flags: list[str], said: str) -> None:
    assert refused("prune", *flags).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("2,4\n0.5\n", ":2: 1 ratios for 2 layers; give one for each layer"),
        ("2,4\n0.5,0.5\nmag\n", ":3: 1 pruners for 2 layers; give one for each layer"),
        ("2,4,9\n0.5,0.5,0.5\n", ": layer 9 cannot be pruned; layers that can: 2, 4"),
        ("2,3\n0.5,0.5\n", ": layer 3 cannot be pruned; layers that can: 2, 4"),
        ("2,4\n0.5,half\n", ":2: ratio must be in [0, 1), got 'half', which is no number, for layer 4"),
        ("2,4\n0.5,1.0\n", ":2: ratio must be in [0, 1), got 1.0 for layer 4"),
        ("2,4\n-0.5,0.5\n", ":2: ratio must be in [0, 1), got -0.5 for layer 2"),
        ("2,2\n0.5,0.5\n", ":1: layer 2 is named 2 times; name each layer once"),
        ("", ":1: no layers here"),
        ("2,4\n", ":2: no ratios here"),
        ("2\n0.5\nmagg\n", ": unknown pruner 'magg'; did you mean mag? known: mag"),
        (b"\x7fELF\xff\xfe", ":1: not UTF-8 text"),
        (None, ": cannot read it (No such file or directory); name a readable .conf file"),
    ],
)
def test_bad_confs(refused, files: Path, content: str | bytes | None, said: str) -> None:
    path = files / "a.conf"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused("prune", "--force", *TOY, "--conf", str(path)).startswith(f"{path}{said}")


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x00" * 100])
def test_bad_checkpoints(refused, files: Path, content: bytes) -> None:
    path = files / "a.safetensors"
    path.write_bytes(content)
    assert refused("test", str(path)).startswith(f"{path}: not a readable safetensors checkpoint")
    said = refused("prune", "--force", *TOY, "-l", "2", "-p", "0.5", "--checkpoint", str(path))
    assert said.startswith(f"{path}: not a readable safetensors checkpoint")


# The rest


def test_bad_commands(refused) -> None:
    assert refused("prume").startswith("No such command 'prume'")
    assert refused("report", "none").endswith(
        "summary.json: not there; name the directory of a search that has finished"
    )


@pytest.mark.parametrize("arguments", [(), ("--help",), ("search", "--help"), ("prune", "--help")])
def test_help(cwd: Path, command, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert command(*arguments) == 0
    out, err = capsys.readouterr()
    assert "Usage" in out
    assert err == ""


def test_the_version(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert capsys.readouterr().out.startswith(f"tune-prune {tune_prune.__version__} (Python {sys.version.split()[0]}, ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_are_completed_in_a_shell(
    tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command("--install-completion", shell) == 0
    assert "completion installed in" in capsys.readouterr().out
    [script] = [path for path in tmp_path.rglob("*tune-prune*") if path.is_file()]
    assert "_TUNE_PRUNE_COMPLETE" in script.read_text()
    assert command("--show-completion", shell) == 0
    assert f"complete_{shell}" in capsys.readouterr().out


def test_the_shell_that_runs_is_the_default(
    command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "detect_shell", lambda: ("fish", "/usr/bin/fish"))
    assert command("--show-completion") == 0
    assert "complete_fish" in capsys.readouterr().out

    def fail() -> None:
        raise main.ShellDetectionFailure

    monkeypatch.setattr(main, "detect_shell", fail)
    assert command("--show-completion") == 2
    assert "requires an argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (main.UserError("a.toml: wrong\nthere"), 2, "a.toml: wrong there"),
        (main.HeldError("run: another process works there"), 75, "run: another process works there"),
        (RuntimeError("no\nroom"), 1, "RuntimeError: no room; files written before are kept; "),
    ],
)
def test_exit_codes(
    cwd: Path,
    command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(run_files, "start_run", fail)
    assert command("search") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"tune-prune: {said}")


def test_interrupted(cwd: Path, command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_files, "start_run", interrupt)
    assert command("search") == 130
    assert "Traceback" not in capsys.readouterr().err


EVIL = "\x1b[2J\u202e[bold]"
"""Clears a terminal, turns the direction of writing, and is markup of rich."""


@pytest.mark.parametrize(
    ("command_line", "code"),
    [
        ("prune --model toys:mlp --data toys:images --conf evil.conf", 2),
        ("test evil.safetensors", 2),
        ("search --dry-run --space evil.toml", 2),
        (f"search --dry-run --force --space {EVIL}.toml", 0),
        ("report run --select knee", 0),
        ("report run --select knee --json", 0),
        (f"search --{EVIL}", 2),
        (f"train --model {EVIL}", 2),
    ],
)
def test_nothing_that_files_hold_acts_on_the_terminal(
    cwd: Path, command, capsys: pytest.CaptureFixture[str], command_line: str, code: int
) -> None:
    (cwd / "evil.conf").write_text(f"{EVIL}\n0.5\n")
    checkpoint.write(cwd / "evil.safetensors", f"{EVIL}:model", mlp(), {})
    (cwd / "evil.toml").write_text(SPACE.replace('"2" =', json.dumps(EVIL) + " ="))
    (cwd / f"{EVIL}.toml").write_text(SPACE)
    (cwd / "run").mkdir()
    columns = "id,trial,round,compression,factor,val_error,conf,checkpoint"
    (cwd / "run" / "pareto.csv").write_text(f"{columns}\n{EVIL},1,1,0.5,2,1,{EVIL},{EVIL}\n")
    assert command(*command_line.split()) == code
    out, err = capsys.readouterr()
    assert r"\u202e[bold]" in out + err
    assert (out + err).replace("\n", "").isprintable()
    if "--json" in command_line:
        assert json.loads(out)["id"] == EVIL


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_lacks_characters(
    files: Path, cwd: Path, command, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    (files / "空.toml").write_text(SPACE)
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert command("--space", files / "空.toml", "--dry-run", "--force", name="search") == 0
        print("空")  # what is printed without typer too
        stream.flush()
        lines = written.getvalue().splitlines()
    assert b"toys:mlp on toys:images, 2 trials" in lines[0]
    assert lines[-1] == b"\\u7a7a"


@pytest.mark.parametrize("arguments", [("--help",), ("search", "--space", "toy.toml", "--dry-run", "--force")])
def test_an_output_that_nobody_reads(
    cwd: Path, command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    (cwd / "toy.toml").write_text(SPACE)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert command(*arguments) == 1
    said = "tune-prune: standard output was closed before the end; files written before are kept\n"
    assert capfd.readouterr().err == said


def test_an_output_on_a_full_disk(
    cwd: Path, command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert command("test", "nowhere.safetensors") == 2  # of two things that are wrong, the first
        assert command("--help") == 1
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith("tune-prune: OSError: [Errno 28] No space left on device; files written before are kept")


def test_the_end_of_a_process_whose_output_is_closed() -> None:
    program = "import sys; from tune_prune.cli import main; main.app = lambda *_, **__: print('x'); main.main('test')"
    for output, said in ((os.pipe(), "was closed before the end"), (("/dev/full", "/dev/full"), "No space left on")):
        reader, writer = output
        if isinstance(reader, int):
            os.close(reader)
        with open(writer, "w") as stream:
            ended = subprocess.run(
                [sys.executable, "-c", program],
                env=os.environ | {"PYTHONUNBUFFERED": ""},  # so that there is something left to be written at the end
                stdout=stream,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert ended.returncode == 1  # 120 where Python itself finds that it cannot write
        assert said in ended.stderr
        assert ended.stderr.count("\n") == 1


def test_errors_that_nobody_reads(cwd: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert command("test", "nowhere.safetensors") == 2


def test_the_traceback_is_there_for_who_asks(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(run_files, "start_run", fail)
    monkeypatch.setenv("TUNE_PRUNE_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["tune-prune", "search"])
    with pytest.raises(RuntimeError, match="no room"):
        main.main()


def test_train_takes_every_flag_as_what_it_is_called(
    cwd: Path, command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = []
    original = train.train

    def noting(name: str, data: Data, recipe: Recipe, *rest: Any, **more: Any) -> list[train.Epoch]:
        recipes.append(recipe)
        return original(name, data, recipe, *rest, **more)

    monkeypatch.setattr(train, "train", noting)
    flags = ["--model", "toys:mlp", "--data", "toys:images", "--epochs", "20", "--batch-size", "24"]
    assert command("train", *flags, "--lr", "0.1", "--momentum", "0.8", "--weight-decay", "0.001") == 0
    assert recipes == [Recipe(200, 0.1, momentum=0.8, weight_decay=0.001, batch_size=24, warmup=0.05)]
    out = capsys.readouterr().out
    lefts = re.findall(r"^epoch +\d+/20 .* %  (-|\d+:\d\d) left$", out, re.MULTILINE)
    assert len(lefts) == 20
    assert (lefts[0], lefts[-1]) == ("-", "0:00")
    error = re.search(r"validation error ([\d.]+) %\n$", out)
    assert error is not None
    assert float(error[1]) < 40  # of four classes: it learns
