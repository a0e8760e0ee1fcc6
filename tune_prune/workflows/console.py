"""Shows a search while it runs: lines that stay in place in a terminal, elsewhere plain lines now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tune_prune.common.printable import make_printable
from tune_prune.results.outcome import SearchOutcome
from tune_prune.workflows.front_table import make_front_tables
from tune_prune.workflows.live_view import Phase, draw_phase, draw_status
from tune_prune.workflows.status import Status

LINE_EVERY = 30.0
"""Seconds between plain lines without a terminal."""

OTHER_LINES = 12
"""Lines of a terminal that are left to what is not a running trial."""


class SearchConsole:
    """Shows one search on a console. As a context manager it shows where the search is from enter to exit."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._status: Status | None = None
        self._phase: Phase | None = None
        self._rows = 0
        self._as_of = self._last_line = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            # the console has a file of its own, so that other output is not redirected
            self._live = Live(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=2,
                redirect_stdout=False,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Prints one line, unless the console is quiet."""
        if not self._quiet:
            self._console.print(Text(make_printable(text)), soft_wrap=True)

    @contextmanager
    def phase(self, name: str, total: int = 0) -> Iterator[Phase]:
        """Shows a part of the search that has no trials while the block runs; its parts are counted by the block.

        Without a terminal its name is a line.
        """
        before, self._phase = self._phase, Phase(name, time.monotonic(), total)
        if not self._live:
            self.say(f"{name}{f': {total}' if total else ''}")
        else:
            self._live.refresh()
        try:
            yield self._phase
        finally:
            self._phase = before

    def show_status(self, status: Status) -> None:
        """Shows the newest status: in the terminal, or as a line where the last one is old enough."""
        now = time.monotonic()
        self._status, self._as_of = status, now
        self._rows = max(self._rows, min(len(status.running), self._console.height - OTHER_LINES))
        if not self._live and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self.say(status.line())

    def _draw(self) -> Group:
        """Draws what is shown now; its clocks run on between updates."""
        now, width = time.monotonic(), self._console.width
        if self._phase is not None:
            return Group(*draw_phase(self._phase, now, width))
        if self._status is None:
            return Group()
        return Group(*draw_status(self._status, now - self._as_of, width, self._rows))

    def show_front(self, outcome: SearchOutcome) -> None:
        """Prints a front that was tested, unless the console is quiet."""
        if not self._quiet:
            for table in make_front_tables(outcome, self._console.width):
                self._console.print(table)
