"""What the documents say holds: links lead somewhere, spaces and commands are those that there are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tune_prune.cli import main
from tune_prune.hpo import space_reader

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not {".venv", "runs", "node_modules"} & set(path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    dead = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_flags_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = get_command(main.app).commands  # type: ignore[attr-defined]
    for line in re.findall(r"^(?:.*&& )?\S*(?:tune-prune|python launch\.py)\b.*$", text, re.MULTILINE):
        words = line.split("#")[0].split("`")[0].split()
        if not any(word.endswith(("tune-prune", "launch.py")) for word in words[:-1]):
            continue  # a sentence about it
        start = next(i for i, word in enumerate(words) if word.endswith(("tune-prune", "launch.py")))
        name = "search" if words[start].endswith("launch.py") else words[start + 1]
        assert name in commands, line
        flags = {flag for parameter in commands[name].params for flag in parameter.opts}
        assert {word for word in words[start + 1 :] if re.match(r"--?[a-z]", word)} <= flags, line


def test_the_readmes_own_model_runs_as_printed(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Your own model")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(?:python|toml)?\n(.*?)```", section, re.DOTALL)
    code, space, commands = blocks[:3]
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "mine.toml").write_text(space)
    assert sum(block.count("\n") for block in blocks[:3]) <= 30
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for line in commands.strip().splitlines():
        program, *words = line.split()
        assert program == "tune-prune"
        command = [sys.executable, "-m", "tune_prune", *words]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("runs/mine-*/summary.json")]
    assert [summary["trials"]["completed"] + summary["trials"]["stopped"] for summary in summaries] == [8]


def test_the_documented_space_is_right() -> None:
    text = (ROOT / "docs" / "spaces.md").read_text(encoding="utf-8")
    whole, *parts = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    found = space_reader.parse(whole, "documented", "docs/spaces.md")
    assert (found.model, found.acc_tradeoff, found.features.warm_start) == ("lenet5", 0.5, True)
    for part in parts:
        space_reader.parse(f'[task]\nmodel = "lenet5"\ndata = "mnist"\n{part}', "part", "docs/spaces.md")


def test_the_documented_pruner_prunes(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "pruners.md").read_text(encoding="utf-8")
    code, command = re.findall(r"```(?:python)?\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_lab.py").write_text(code)
    assert code.count("\n") <= 10
    words = [sys.executable, "-m", "tune_prune", *command.split()[1:], "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["layers"]["8"] == {"total": 288_000, "kept": 28_800}


def test_ci_runs_the_readmes_test_line() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"<!-- test line -->\n```\n(.*)\n```", text)
    assert len(lines) == 1
    assert "<!-- test line -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.toml")), ids=lambda path: path.stem)
def test_every_space_that_comes_along_is_right(path: Path) -> None:
    assert space_reader.read(path).name == path.stem
