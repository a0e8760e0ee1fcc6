"""Shows a search while it runs: a live table in a terminal, elsewhere a plain line every 30 seconds."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_prune.common.printable import make_printable
from tune_prune.results.certificate import Certificate
from tune_prune.results.confidence import Confirmation
from tune_prune.results.constraints import find_speed
from tune_prune.results.front import TestResult
from tune_prune.results.outcome import SearchOutcome
from tune_prune.tasks.metrics import ERROR, Metric

LINE_EVERY = 30.0
"""Seconds between plain lines without a terminal."""

BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Status:
    """How far a search is: its trials by state, its best point, and its time in seconds.

    `budget` is the number of trials, None where time alone ends the search; `share` in [0, 1] is the used part of the
    budget. `best_factor` and `best`, the metric with its unit, belong to the most compressed feasible point, and are
    None before there is one. `history` is the hypervolume after each trial that has ended; `forecast` says what it will
    be, and is empty before anything can be said.
    """

    budget: int | None
    share: float
    done: int
    running: int
    stopped: int
    failed: int
    best_factor: float | None
    best: str | None
    hypervolume: float
    history: Sequence[float]
    seconds: float
    seconds_left: float | None
    forecast: str = ""

    def line(self) -> str:
        """The status in one plain line."""
        return (
            f"{_format_done(self)} trials done, {self.running} running, {self.stopped} stopped, "
            f"{self.failed} failed; best {_format_best(self)}; hypervolume {self.hypervolume:.4f}; "
            f"{format_clock(self.seconds)} elapsed, {format_clock(self.seconds_left)} left"
            f"{f'; {self.forecast}' if self.forecast else ''}"
        )


def format_clock(seconds: float | None) -> str:
    """Formats seconds as h:mm:ss or m:ss; a dash stands for an unknown time."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """Draws a history with at most `width` blocks, from 0 to its maximum; each is the last value of its part."""
    if not values or max(values) <= 0:
        return ""
    count = min(width, len(values))
    last = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * value / max(values))] for value in last)


def _format_done(status: Status) -> str:
    return str(status.done) if status.budget is None else f"{status.done}/{status.budget}"


def _format_best(status: Status) -> str:
    if status.best_factor is None:
        return "none yet"
    return f"{status.best_factor:.1f}x at {status.best}"


class SearchConsole:
    """Shows one search on a console. As a context manager it shows the live table from enter to exit."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._status: Status | None = None
        self._as_of = self._last_line = time.monotonic()
        live = console.is_terminal and not quiet
        # the console has a file of its own, so that other output is not redirected
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
        """Prints one line, unless the console is quiet."""
        if not self._quiet:
            self._console.print(_make_text(text), soft_wrap=True)

    def show_status(self, status: Status) -> None:
        """Shows the newest status: in the live table, or as a line where the last one is old enough."""
        now = time.monotonic()
        self._status, self._as_of = status, now
        if not self._live and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self.say(status.line())

    def _table(self) -> Table | str:
        """Makes the live table; its clocks run on between updates."""
        if self._status is None:
            return ""
        status, since = self._status, time.monotonic() - self._as_of
        left = None if status.seconds_left is None else max(0.0, status.seconds_left - since)
        table = Table("trials", "", "running", "stopped", "failed", "best", "hypervolume", "elapsed", "left")
        table.caption = status.forecast or None
        table.add_row(
            _format_done(status),
            ProgressBar(1.0, status.share, width=20),
            str(status.running),
            str(status.stopped),
            str(status.failed),
            _format_best(status),
            f"{status.hypervolume:.4f} {sparkline(status.history)}",
            format_clock(status.seconds + since),
            format_clock(left),
        )
        return table

    def show_front(self, outcome: SearchOutcome) -> None:
        """Prints a front that was tested as a table, the least compressed member first, below the dense model."""
        if self._quiet:
            return
        assert outcome.dense_test is not None
        dense = outcome.dense_test
        tested, confirmed, metric = outcome.tested, outcome.confirmed, outcome.info.metric
        refit = any(result.refit for result in tested.values())
        title = "Front; tested after a refit on training and validation images" if refit else "Front"
        known = any(result.low is not None for result in [dense, *tested.values()])
        test = f"test {metric.name}" + (" (95 %)" if known else "")
        table = Table("id", "factor", "compression", f"validation {metric.name}", test, "trial", title=title)
        if confirmed:
            count = max(len(confirmation.metrics) for confirmation in confirmed.values())
            table.add_column(f"{count} other seeds", justify="right")
        is_timed = outcome.info.limits.latency
        if is_timed:
            table.add_column("times as fast", justify="right")
        further = [*outcome.info.dense_further]
        for name in further:
            table.add_column(f"{name.removeprefix('val_')}, validation and test", justify="right")
        if outcome.claim:
            table.add_column(f"certified at {100 * outcome.claim.level:g} %")
        for column in table.columns[1:5]:
            column.justify = "right"
        dense_val = metric.format(outcome.info.dense_metric)
        beside = [
            "",
            *([""] if confirmed else []),
            *(["1.00"] if is_timed else []),
            *_format_further(outcome.info.dense_further, dense),
        ]
        table.add_row("dense", "1.0x", "0", dense_val, _format_test(dense, metric), *beside)
        for m in outcome.members:
            row = f"{m.point.factor:.1f}x", f"{m.point.compression:.5f}", metric.format(m.point.val_metric)
            repeated = [_format_confirmation(confirmed.get(m.id), metric)] if confirmed else []
            certified = [_format_certificate(outcome.certificates.get(m.id))] if outcome.claim else []
            cells = [m.id, *row, _format_test(tested[m.id], metric), str(m.record.trial), *repeated]
            cells += [f"{find_speed(m.point.costs):.2f}"] if is_timed else []
            measured = {name: m.point.costs.get(name, math.nan) for name in further}
            cells += [*_format_further(measured, tested[m.id]), *certified]
            table.add_row(*map(_make_text, cells))
        self._console.print(table)


def _make_text(text: str) -> Text:
    """Text that is shown as it is: nothing in it is markup or an emoji, and control characters are escaped."""
    return Text(make_printable(text))


def _format_confirmation(confirmation: Confirmation | None, metric: Metric) -> str:
    if confirmation is None:
        return "-"
    verdict = "holds" if confirmation.holds else "may not hold"
    return f"{_format_number(confirmation.mean, metric)} ± {metric.format(confirmation.spread)}, {verdict}"


def _format_further(measured: Mapping[str, float], test: TestResult) -> list[str]:
    """Further metrics on validation data, by column, each with its value on test data."""
    pairs = [(value, test.further.get(name.replace("val_", "test_", 1))) for name, value in measured.items()]
    return [f"{value:.4g}, {'n/a' if tested is None else f'{tested:.4g}'}" for value, tested in pairs]


def _format_certificate(made: Certificate | None) -> str:
    if made is None or made.p_value is None:
        return "-"
    return f"{'yes' if made.certified else 'no'}, p = {made.p_value:.2g}"


def _format_test(result: TestResult, metric: Metric) -> str:
    value = metric.format(result.metric)
    if result.low is None or result.high is None:
        return value
    low, high = (_format_number(end, metric) for end in (result.low, result.high))
    return f"{value} ({low}-{high})" if metric == ERROR else f"{value} ({low} to {high})"  # which may be negative


def _format_number(value: float, metric: Metric) -> str:
    """A value of the metric without its unit."""
    return metric.format(value).removesuffix(metric.unit)
