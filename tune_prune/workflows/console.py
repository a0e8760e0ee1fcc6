"""What a search shows while it runs: a live table in a terminal, else a plain line now and then."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tune_prune.results.confidence import Confirmation
from tune_prune.results.front import Member, TestResult

LINE_EVERY = 30.0
"""Seconds between plain lines where there is no terminal."""

BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Status:
    """How far a search is. `best_factor` is of the most compressed feasible point, None before there is one.

    `budget` are its trials, None where time alone ends it; `share` in [0, 1] is how much of its budget is gone;
    `course` is the hypervolume after each trial that has ended.
    """

    budget: int | None
    share: float
    done: int
    running: int
    stopped: int
    failed: int
    best_factor: float | None
    best_error: float | None
    hypervolume: float
    history: Sequence[float]
    seconds: float
    seconds_left: float | None

    def line(self) -> str:
        """Everything in one plain line."""
        return (
            f"{_done(self)} trials done, {self.running} running, {self.stopped} stopped, "
            f"{self.failed} failed; best {_best(self)}; hypervolume {self.hypervolume:.4f}; "
            f"{format_clock(self.seconds)} gone, {format_clock(self.seconds_left)} left"
        )


def format_clock(seconds: float | None) -> str:
    """Seconds as h:mm:ss or m:ss; a dash where they are not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """A course in so many blocks, from 0 to its highest; each is the last value of its part."""
    if not values or max(values) <= 0:
        return ""
    count = min(width, len(values))
    last = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * value / max(values))] for value in last)


def _done(status: Status) -> str:
    return str(status.done) if status.budget is None else f"{status.done}/{status.budget}"


def _best(status: Status) -> str:
    if status.best_factor is None:
        return "none yet"
    return f"{status.best_factor:.1f}x at {status.best_error:.2f} %"


class SearchConsole:
    """Shows one search on a console. A context: the live table is there between enter and exit."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._status: Status | None = None
        self._as_of = self._last_line = time.monotonic()
        live = console.is_terminal and not quiet
        # the console holds its own file; what others print meanwhile goes where they were sent
        table = Live(console=console, get_renderable=self._table, refresh_per_second=2, redirect_stdout=False)
        self._live = table if live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """One line."""
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, status: Status) -> None:
        """Show the newest status."""
        now = time.monotonic()
        self._status, self._as_of = status, now
        if not self._live and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self.say(status.line())

    def _table(self) -> Table | str:
        """The live table; its clocks go on between updates."""
        if self._status is None:
            return ""
        status, since = self._status, time.monotonic() - self._as_of
        left = None if status.seconds_left is None else max(0.0, status.seconds_left - since)
        table = Table("trials", "", "running", "stopped", "failed", "best", "hypervolume", "gone", "left")
        table.add_row(
            _done(status),
            ProgressBar(1.0, status.share, width=20),
            str(status.running),
            str(status.stopped),
            str(status.failed),
            _best(status),
            f"{status.hypervolume:.4f} {sparkline(status.history)}",
            format_clock(status.seconds + since),
            format_clock(left),
        )
        return table

    def front(
        self,
        members: Sequence[Member],
        tested: Mapping[str, TestResult],
        dense: TestResult,
        dense_val: float,
        confirmed: Mapping[str, Confirmation],
    ) -> None:
        """The front as a table, the least compressed first."""
        if self._quiet:
            return
        refit = any(test.refit for test in tested.values())
        title = "Front; tested after a refit on training and validation images" if refit else "Front"
        table = Table("id", "factor", "compression", "validation error", "test error (95 %)", "trial", title=title)
        if confirmed:
            count = max(len(again.errors) for again in confirmed.values())
            table.add_column(f"{count} other seeds", justify="right")
        for column in table.columns[1:5]:
            column.justify = "right"
        table.add_row("dense", "1.0x", "0", f"{dense_val:.2f} %", _test(dense), "")
        for m in members:
            row = f"{m.point.factor:.1f}x", f"{m.point.compression:.5f}", f"{m.point.val_error:.2f} %"
            again = [_again(confirmed.get(m.id))] if confirmed else []
            table.add_row(m.id, *row, _test(tested[m.id]), str(m.record.trial), *again)
        self._console.print(table)


def _again(confirmed: Confirmation | None) -> str:
    if confirmed is None:
        return "-"
    verdict = "holds" if confirmed.holds else "may not hold"
    return f"{confirmed.mean:.2f} ± {confirmed.spread:.2f} %, {verdict}"


def _test(tested: TestResult) -> str:
    return f"{tested.error:.2f} % ({tested.low:.2f}-{tested.high:.2f})"
