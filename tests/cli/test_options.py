import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from rich.console import Console
from typer.main import get_command

from tune_prune import __version__
from tune_prune.cli import main, options
from tune_prune.cli.options import announce, grouped, waiting

Shared = Annotated[int, typer.Option()]


def test_a_parameter_is_grouped_in_this_command_alone() -> None:
    @grouped({"Numbers": "one"})
    def command(one: Shared = 1, two: Shared = 2) -> None:
        pass

    def other(one: Shared = 1) -> None:
        pass

    app = typer.Typer()
    app.command()(command)
    app.command()(other)
    found = {
        (name, p.name): getattr(p, "rich_help_panel", None)
        for name, c in get_command(app).commands.items()  # type: ignore[attr-defined]
        for p in c.params
    }
    assert found == {("command", "one"): "Numbers", ("command", "two"): None, ("other", "one"): None}


def test_a_name_that_is_none() -> None:
    with pytest.raises(ValueError, match="command has no parameter 'three'"):

        @grouped({"Numbers": "one three"})
        def command(one: Shared = 1) -> None:
            pass


def test_every_command_that_reads_a_file_refuses_code() -> None:
    commands = get_command(main.app).commands  # type: ignore[attr-defined]
    refusing = [name for name, command in commands.items() if any("--no-code" in p.opts for p in command.params)]
    assert refusing == [*commands]


@pytest.mark.parametrize("name", ["search", "prune"])
def test_every_option_of_the_large_commands_has_a_place(name: str) -> None:
    params = get_command(main.app).commands[name].params  # type: ignore[attr-defined]
    assert [p.name for p in params if p.rich_help_panel is None and p.name != "help"] == []


def test_a_first_line_comes_before_what_takes_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    announce()
    assert capsys.readouterr().out == ""  # everything is loaded already
    monkeypatch.delitem(sys.modules, "torch")
    announce(quiet=True)
    assert capsys.readouterr().out == ""
    announce()
    assert capsys.readouterr().out == f"tune-prune {__version__}: loading PyTorch, Ray and Optuna\n"


def test_the_first_line_of_the_program() -> None:
    """PyTorch is not imported before it: only then it comes at once."""
    program = (
        "import sys; sys.argv[1:] = ['search', '--budget', '0']; from tune_prune.cli import main; "
        "assert 'torch' not in sys.modules; main.main()"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=Path.cwd(), capture_output=True, text=True)
    assert ended.stdout == f"tune-prune {__version__}: loading PyTorch, Ray and Optuna\n"
    assert ended.stderr == "tune-prune: --budget must be at least 1 trial, got 0\n"


def test_what_is_waited_for_is_shown_in_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting("testing"):
        pass
    assert capsys.readouterr().out == ""
    for quiet in (True, False):
        monkeypatch.setattr(options, "Console", lambda file: Console(file=file, force_terminal=True, width=80))
        with waiting("testing", quiet):
            print("in between")
        out = capsys.readouterr().out
        assert ("testing" in out) == (not quiet)
        assert "in between" in out
