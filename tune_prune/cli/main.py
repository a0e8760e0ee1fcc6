"""The program: runs a command, prints every error as one line, and ends with an exit code."""

import os
import sys
from typing import cast

import typer

from tune_prune.cli import model, prune, search, sensitivity
from tune_prune.common.errors import HeldError, UserError
from tune_prune.common.import_path import add_working_directory

# BadParameter < UsageError < ClickException: typer carries a click of its own, and exports no other name for it
ClickError: type[Exception] = cast(type[Exception], typer.BadParameter.__mro__[2])

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)
for command, examples in (
    (search.search, search.EXAMPLES),
    (model.train, None),
    (prune.prune, prune.PRUNE_EXAMPLES),
    (sensitivity.sensitivity, None),
    (model.test, None),
    (model.export, None),
    (search.report, None),
):
    app.command(epilog=examples)(command)


@app.callback()
def root() -> None:
    """Find out how far a neural network can be pruned, and how."""


def main(command: str | None = None) -> None:
    """Runs the program, and ends the process; `command` goes before the arguments."""
    arguments = [*([command] if command else []), *(sys.argv[1:] or ([] if command else ["--help"]))]
    try:
        add_working_directory()
        code = app(arguments, standalone_mode=False)
    except ClickError as error:
        code = _fail(error.format_message(), 2)  # type: ignore[attr-defined]
    except UserError as error:
        code = _fail(str(error), 2)
    except HeldError as error:
        code = _fail(str(error), 75)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 130)
    except Exception as error:
        if os.environ.get("TUNE_PRUNE_TRACEBACK"):
            raise
        cause = error
        while isinstance(cause.__cause__, Exception):  # the first error says most: that the disk is full, for example
            cause = cause.__cause__
        message = f"{type(cause).__name__}: {cause}; files written before are kept; TUNE_PRUNE_TRACEBACK=1 shows where"
        code = _fail(message, 1)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    print(f"tune-prune: {' '.join(message.split())}", file=sys.stderr)
    return code
