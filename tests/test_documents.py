"""What the documents say holds: links lead somewhere, spaces and commands are those that there are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tune_prune import cli, space_file

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not {".venv", "runs", "node_modules"} & set(path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    dead = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert dead == []


def test_the_readme_names_commands_and_flags_that_there_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    for line in re.findall(r"^(?:.*&& )?\S*(?:tune-prune|python launch\.py)\b.*$", text, re.MULTILINE):
        words = line.split("#")[0].split("`")[0].split()
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


def test_ci_runs_the_readmes_test_line() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"<!-- test line -->\n```\n(.*)\n```", text)
    assert len(lines) == 1
    assert "<!-- test line -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.toml")), ids=lambda path: path.stem)
def test_every_space_that_comes_along_is_right(path: Path) -> None:
    assert space_file.read(path).name == path.stem
