"""What commands print: lines, and in a terminal what is waited for and how far a training is."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self, TextIO

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tune_prune import __version__
from tune_prune.common.printable import make_printable


def echo(line: str, file: TextIO | None = None) -> None:
    """Prints a line on standard output, or in a file; control characters as their escapes."""
    typer.echo(make_printable(line), file=file)


def silent(line: str) -> None:
    """Prints nothing: what a command says otherwise, where `--json` is given."""


def announce(quiet: bool = False) -> None:
    """Prints a first line before PyTorch is imported, which takes seconds."""
    if not quiet and "torch" not in sys.modules:
        echo(f"tune-prune {__version__}: loading PyTorch, Ray and Optuna")
        sys.stdout.flush()


@contextmanager
def waiting(what: str, quiet: bool = False) -> Iterator[None]:
    """Shows in a terminal what is waited for, and for how long, while the block runs; nothing stays of it."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    console = Console(file=sys.stdout)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        progress.add_task(what, total=None)
        yield


class TrainingProgress:
    """Shows how far a training is: a bar in a terminal, elsewhere a line at most every 30 seconds.

    As a context manager it shows every training of its block; `describe` names the part that a training is in, from
    the steps that are done and all of them, and says how many steps of that part are done, and of how many.
    """

    def __init__(self, describe: Callable[[int, int], tuple[str, int, int]], quiet: bool = False) -> None:
        self._describe, self._quiet = describe, quiet
        console = Console(file=sys.stdout)
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._task = self.bar.add_task("", visible=False)
        self._name, self._began, self._last_line = "", 0.0, time.monotonic()
        self._block = ExitStack()

    def __enter__(self) -> Self:
        from tune_prune.training.progress import on_step

        self._block.enter_context(self.bar)
        if not self._quiet:
            self._block.enter_context(on_step(self.show))
        return self

    def __exit__(self, *_: object) -> None:
        self._block.close()

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self.bar.disable:
            echo(line)
        else:
            self.bar.console.print(Text(make_printable(line)), soft_wrap=True)

    def show(self, done: int, steps: int) -> None:
        """Shows that so many of a training's steps are done."""
        name, of_part, part = self._describe(done, steps)
        now = time.monotonic()
        if name != self._name or of_part == 1:
            self._name, self._began = name, now
            self.bar.reset(self._task, description=name, total=part)
        self.bar.update(self._task, completed=of_part, visible=of_part < part)
        if self.bar.disable and 1 < of_part < part:
            self._say(now, of_part, part)

    def _say(self, now: float, of_part: int, part: int) -> None:
        """Prints a line where the last one is old enough."""
        from tune_prune.workflows.console import LINE_EVERY
        from tune_prune.workflows.status import format_clock

        if now - self._last_line >= LINE_EVERY:
            self._last_line = now
            left = (now - self._began) / (of_part - 1) * (part - of_part)
            self.say(f"{self._name}: {of_part / part:.0%} of its steps, {format_clock(left)} left")
