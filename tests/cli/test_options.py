from typing import Annotated

import pytest
import typer
from typer.main import get_command

from tune_prune.cli import main
from tune_prune.cli.options import grouped

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
