"""The commands that a report names: they exist, and name the code that a checkpoint's own word is not enough for."""

import json
import shlex
from pathlib import Path

import pytest
from test_html import SUMMARY, partial_run, run_dir
from typer.main import get_command

from tune_prune.cli import main
from tune_prune.results.report.next_steps import list_next_steps
from tune_prune.results.run_results import SearchDescription, read_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "a run").mkdir()
    return run_dir(tmp_path / "a run")


def steps(path: Path) -> list[str]:
    return [*list_next_steps(read_run(path), path)]


def test_they_are_commands_with_flags_that_there_are(run: Path) -> None:
    commands = get_command(main.app).commands  # type: ignore[attr-defined]
    found = [shlex.split(step) for step in steps(run)]
    assert [words[1] for words in found] == ["test", "export", "report", "search", "search", "compare"]
    for program, name, *words in found:
        assert program == "tune-prune"
        flags = {flag for parameter in commands[name].params for flag in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= flags
    assert all(str(run) in " ".join(words) for words in found)


def test_paths_begin_at_the_working_directory(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    assert steps(run)[0] == "tune-prune test 'a run/checkpoints/001.safetensors'"


def test_what_is_code_is_named(run: Path) -> None:
    summary = SUMMARY | {"model": "mine:model(width=64)", "data": "mine:data"}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "confs" / "001.conf").write_text('8\n0.95\nmag\n# task = {loss = "mine:loss", precision = "fp32"}\n')
    code = "--model 'mine:model(width=64)' --data mine:data --loss mine:loss"
    assert steps(run)[0].endswith(code)
    assert steps(run)[1].endswith(f"--to sparse {code}")


def test_a_model_from_python_cannot_be_named(run: Path) -> None:
    (run / "summary.json").write_text(json.dumps(SUMMARY | {"model": "tune_prune.tasks.in_memory:model"}))
    assert not [step for step in steps(run) if step.startswith(("tune-prune test", "tune-prune export"))]


def test_a_damaged_conf_leaves_the_commands(run: Path) -> None:
    (run / "confs" / "001.conf").write_text("nonsense")
    assert len(steps(run)) == 6


def test_without_a_front_the_search_goes_on(run: Path) -> None:
    (run / "summary.json").write_text(json.dumps(SUMMARY | {"front": [], "best": None}))
    assert steps(run) == [f"tune-prune search --resume '{run}' --budget 200"]


def test_a_search_that_still_runs_is_followed(tmp_path: Path) -> None:
    path = partial_run(tmp_path)
    found = list_next_steps(read_run(path, SearchDescription("lenet5", "mnist", 0.5)), path)
    assert [*found] == [f"tune-prune report {path} --watch", f"tune-prune search --resume {path}"]
