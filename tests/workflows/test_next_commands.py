import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_console import outcome
from toys import ended
from typer.main import get_command

from tune_prune.cli import main
from tune_prune.results.front import Member, TestResult, find_front
from tune_prune.results.outcome import SearchOutcome
from tune_prune.tasks.settings import TaskSettings
from tune_prune.workflows import next_commands
from tune_prune.workflows.next_commands import list_next_commands


def found(members: list[Member], **facts: Any) -> SearchOutcome:
    made = outcome(members, {member.id: RESULT for member in members}, RESULT)
    return replace(made, info=replace(made.info, **facts))


def parse(line: str) -> tuple[str, dict[str, Any]]:
    """The command that a line names, and its parameters; an error where the program would refuse the line."""
    program, name, *rest = shlex.split(line)
    assert program == "tune-prune"
    command = get_command(main.app).commands[name]  # type: ignore[attr-defined]
    return name, command.make_context(name, rest).params


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the working directory, with a name that a shell takes apart."""
    monkeypatch.setattr(next_commands.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my runs" / "lenet5 (1)"


RESULT = TestResult(1.0, 0.9, 1.1)
FRONT = find_front([ended(4, (0.9, 1.0), (0.99, 1.5))])
CHECKPOINT = Path("my runs/lenet5 (1)/checkpoints/002.safetensors")


def test_every_command_is_one_of_the_program(run_dir: Path) -> None:
    parsed = [parse(line) for line in list_next_commands(run_dir, found(FRONT, model="lenet5", data="mnist"))]
    assert [name for name, _ in parsed] == ["test", "export", "report", "search", "search"]
    test, export, report, confirm, more = (params for _, params in parsed)
    assert test["checkpoint"] == export["checkpoint"] == CHECKPOINT
    assert (test["model"], test["data"], export["to"]) == (None, None, "sparse")
    assert (report["run_dir"], report["select"]) == (run_dir.relative_to(os.getcwd()), "knee")
    assert (confirm["resume"], confirm["confirm"]) == (report["run_dir"], 5)
    assert more["budget"] == 2


def test_what_a_file_names_as_code_is_named_again(run_dir: Path) -> None:
    settings = TaskSettings(loss="mine:loss(a='b c')", metric="mine:f1", better="higher", augment="mine:a")
    facts = {"model": "mine:model(width=64)", "data": "torchvision:CIFAR10(root='my data')", "settings": settings}
    name, params = parse(list_next_commands(run_dir, found(FRONT, **facts))[0])
    assert name == "test"
    assert {key: params[key] for key in ("model", "data", "loss", "metric", "better")} == {
        "model": "mine:model(width=64)", "data": "torchvision:CIFAR10(root='my data')", "loss": "mine:loss(a='b c')",
        "metric": "mine:f1", "better": None,
    }  # fmt: skip
    torchvision = parse(list_next_commands(run_dir, found(FRONT, model="torchvision:resnet18()", data="mnist"))[0])[1]
    assert torchvision["model"] is None


def test_without_a_front(run_dir: Path) -> None:
    parsed = [parse(line) for line in list_next_commands(run_dir, found([], budget=None, time_budget=60.0))]
    assert [name for name, _ in parsed] == ["report", "search"]
    assert parsed[1][1]["time_budget"] == "15m"


def test_objects_from_python_have_no_commands(run_dir: Path) -> None:
    assert list_next_commands(run_dir, found(FRONT, model="tune_prune.tasks.in_memory:model(number=1)")) == []


def test_a_program_that_is_not_on_the_path_is_run_by_its_python(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_commands.shutil, "which", lambda name: None)
    monkeypatch.setattr(next_commands.sys, "executable", str(Path.cwd() / ".venv" / "bin" / "python"))
    assert list_next_commands(run_dir, found(FRONT))[0].startswith(".venv/bin/python -m tune_prune test ")
