"""The program: runs a command, prints every error as one line, and ends with an exit code."""

import io
import os
import sys
from enum import StrEnum
from importlib.metadata import version
from typing import Annotated, Any, TextIO, cast

import typer
from shellingham import ShellDetectionFailure, detect_shell
from typer.completion import get_completion_inspect_parameters, install_callback, show_callback

from tune_prune import __version__
from tune_prune.cli import compare, init, latency, model, prune, search, sensitivity
from tune_prune.cli.output import echo
from tune_prune.common.errors import HeldError, UserError, find_nearest
from tune_prune.common.import_path import add_working_directory
from tune_prune.common.printable import make_printable

# BadParameter < UsageError < ClickException: typer carries a click of its own, and exports no other name for it
ClickError: type[Exception] = cast(type[Exception], typer.BadParameter.__mro__[2])

OUTPUT_CLOSED = "standard output was closed before the end; files written before are kept"

get_completion_inspect_parameters()  # sets completion up: its own options know only the shell that runs them
app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False, add_completion=False
)
for command, examples in (
    (search.search, search.EXAMPLES),
    (init.init, None),
    (model.train, None),
    (prune.prune, prune.PRUNE_EXAMPLES),
    (sensitivity.sensitivity, None),
    (latency.latency, None),
    (model.test, None),
    (model.export, None),
    (search.report, None),
    (compare.compare, compare.EXAMPLES),
):
    app.command(epilog=examples)(command)


class Shell(StrEnum):
    """The shells that commands can be completed in."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"
    powershell = "powershell"
    pwsh = "pwsh"


def show_version(wanted: bool) -> None:
    """Prints the versions of the program and of the libraries that decide what it does, and ends, where it is asked."""
    if wanted:
        libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray", "optuna"))
        echo(f"tune-prune {__version__} (Python {sys.version.split()[0]}, {libraries})")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
    install_completion: Annotated[
        Shell | None,
        typer.Option(callback=install_callback, is_eager=True, help="Complete commands in this shell from now on."),
    ] = None,
    show_completion: Annotated[
        Shell | None,
        typer.Option(callback=show_callback, is_eager=True, help="Print the script that completes commands."),
    ] = None,
) -> None:
    """Find out how far a neural network can be pruned, and how."""


def main(command: str | None = None) -> None:
    """Runs the program, and ends the process; `command` goes before the arguments."""
    _make_encodable()
    arguments = [*([command] if command else []), *(sys.argv[1:] or ([] if command else ["--help"]))]
    try:
        add_working_directory()
        code = app(_name_shell(_name_augment(arguments)), prog_name="tune-prune", standalone_mode=False)
    except ClickError as error:
        code = _fail(_describe_usage(error), 2)
    except UserError as error:
        code = _fail(str(error), 2)
    except HeldError as error:
        code = _fail(str(error), 75)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 130)
    except SystemExit as error:  # by which both typer and rich end a command whose output nobody reads any more
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        _discard(sys.stdout)
        code = _fail(OUTPUT_CLOSED, 1)
    except Exception as error:
        if os.environ.get("TUNE_PRUNE_TRACEBACK"):
            raise
        cause = error
        while isinstance(cause.__cause__, Exception):  # the first error says most: that the disk is full, for example
            cause = cause.__cause__
        message = f"{type(cause).__name__}: {cause}; files written before are kept; TUNE_PRUNE_TRACEBACK=1 shows where"
        code = _fail(message, 1)
    sys.exit(_flush_output(code))


def _describe_usage(error: Any) -> str:
    """The message of an error in the command line; of an option that there is not, with the nearest that there is."""
    name, context = getattr(error, "option_name", None), error.ctx
    if name is None or context is None or not name.startswith("--"):
        return str(error.format_message())
    known = [option for parameter in context.command.params for option in parameter.opts if option.startswith("--")]
    nearest = find_nearest(name, known)
    meant = f"did you mean {nearest}? " if nearest else ""
    return f"No such option: {name}; {meant}tune-prune {context.info_name} --help lists all"


def _name_augment(arguments: list[str]) -> list[str]:
    """Gives an `--augment` without a name the name `affine`: it was a switch of `train` once, which did that."""
    named = list[str]()
    for word, after in zip(arguments, [*arguments[1:], "-"], strict=True):
        named += [word, "affine"] if word == "--augment" and after.startswith("-") else [word]
    return named


def _name_shell(arguments: list[str]) -> list[str]:
    """Names the shell that runs the program where `--install-completion` or `--show-completion` names none."""
    if arguments[-1] not in ("--install-completion", "--show-completion"):
        return arguments
    try:
        return [*arguments, detect_shell()[0]]
    except ShellDetectionFailure:
        return arguments  # typer says that the option needs a value


def _make_encodable() -> None:
    """Lets standard output write characters that its encoding lacks as escapes, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")


def _flush_output(code: int) -> int:
    """Writes what is left of standard output, and returns the exit code: 1 in place of 0 where that fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        broken = isinstance(error, BrokenPipeError)
        return code or _fail(OUTPUT_CLOSED if broken else f"standard output: {error.strerror}", 1)
    return code


def _discard(stream: TextIO) -> None:
    """Sends what a stream still holds nowhere: Python writes it at its end, and would make an exit code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(message: str, code: int) -> int:
    try:
        print(f"tune-prune: {make_printable(' '.join(message.split()))}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it; the exit code says the same
        _discard(sys.stderr)
    return code
