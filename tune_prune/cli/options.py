"""Options of a command in groups, as its `--help` shows them."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args

import typer

from tune_prune.common import entrypoints

Command = TypeVar("Command", bound=Callable[..., Any])


def grouped(panels: Mapping[str, str]) -> Callable[[Command], Command]:
    """A decorator that puts a command's parameters into panels: their names, separated by spaces, by panel.

    Raises ValueError for a name that is no parameter.
    """

    def decorate(command: Command) -> Command:
        parameters = inspect.signature(command).parameters
        for panel, names in panels.items():
            for name in names.split():
                if name not in parameters:
                    raise ValueError(f"{command.__name__} has no parameter {name!r}")
                kind, option = get_args(parameters[name].annotation)
                option = copy.copy(option)  # other commands may have the same
                option.rich_help_panel = panel
                command.__annotations__[name] = Annotated[kind, option]
        return command

    return decorate


Model = Annotated[str, typer.Option(help="Built-in name or package.module:factory.")]
Data = Annotated[str, typer.Option(help="Built-in name or package.module:factory.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
NoCode = Annotated[
    bool,
    typer.Option(
        "--no-code", callback=entrypoints.refuse_code, help="Import no package.module:name that a file names."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


def echo(line: str) -> None:
    """Say a line."""
    typer.echo(line)


def silent(line: str) -> None:
    """What is said beside `--json`."""
