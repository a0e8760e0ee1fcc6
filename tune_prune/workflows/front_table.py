"""Makes the tables of a front that was tested, each no wider than the screen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from tune_prune.common.printable import make_printable
from tune_prune.results.certificate import Certificate
from tune_prune.results.confidence import Confirmation
from tune_prune.results.constraints import find_speed
from tune_prune.results.front import TestResult
from tune_prune.results.outcome import SearchOutcome
from tune_prune.tasks.metrics import ERROR, Metric

BORDER = 3
"""Characters between two columns of a table."""


@dataclass(frozen=True)
class Column:
    """A column: its heading, its cells from top to bottom, and whether they are numbers, which stand to the right.

    A column that is not needed is left out where it does not fit beside the others.
    """

    heading: str
    cells: list[str]
    is_number: bool = True
    is_needed: bool = True

    @property
    def width(self) -> int:
        """Characters of the widest cell."""
        return max(map(len, [self.heading, *self.cells])) + BORDER


def make_front_tables(outcome: SearchOutcome, width: int) -> list[Table]:
    """Makes the table of a front, the least compressed member first, below the dense model.

    Columns that do not fit beside the others go to further tables.
    """
    first, *others = list_columns(outcome)
    refit = any(result.refit for result in outcome.tested.values())
    title = "Front; tested after a refit on training and validation images" if refit else "Front"
    parts: list[list[Column]] = [[first]]
    for column in others:
        if sum(one.width for one in [*parts[-1], column]) + 1 > width and len(parts[-1]) > 1:
            if not column.is_needed:
                continue
            parts.append([first])
        parts[-1].append(column)
    return [_make_table(part, title if at == 0 else f"{title}, continued") for at, part in enumerate(parts)]


def _make_table(columns: list[Column], title: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column.heading, justify="right" if column.is_number else "left")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


def list_columns(outcome: SearchOutcome) -> list[Column]:
    """The columns of a front: each has a cell for the dense model, and then one for each member."""
    info, members, tested = outcome.info, outcome.members, outcome.tested
    assert outcome.dense_test is not None
    dense, metric = outcome.dense_test, info.metric
    points = [member.point for member in members]
    results = [dense, *(tested[member.id] for member in members)]
    interval = " (95 %)" if any(result.low is not None for result in results) else ""
    validation = [metric.format(value) for value in (info.dense_metric, *(point.val_metric for point in points))]
    columns = [
        Column("id", ["dense", *(make_printable(member.id) for member in members)], False),
        Column("factor", ["1.0x", *(f"{point.factor:.1f}x" for point in points)]),
        Column("compression", ["0", *(f"{point.compression:.5f}" for point in points)]),
        Column(f"validation {metric.name}", validation),
        Column(f"test {metric.name}{interval}", [_format_test(result, metric) for result in results]),
    ]
    if confirmed := outcome.confirmed:
        count = max(len(confirmation.metrics) for confirmation in confirmed.values())
        cells = [_format_confirmation(confirmed.get(member.id), metric) for member in members]
        columns.append(Column(f"{count} other seeds", ["", *cells]))
    if info.limits.latency:
        columns.append(Column("times as fast", ["1.00", *(f"{find_speed(point.costs):.2f}" for point in points)]))
    for name, value in info.dense_further.items():
        values = [value, *(point.costs.get(name, math.nan) for point in points)]
        cells = [_format_further(name, *pair) for pair in zip(values, results, strict=True)]
        columns.append(Column(f"{name.removeprefix('val_')}, validation and test", cells))
    if outcome.claim:
        cells = [_format_certificate(outcome.certificates, member.id) for member in members]
        columns.append(Column(f"certified at {100 * outcome.claim.level:g} %", ["", *cells], False))
    return [*columns, Column("trial", ["", *(str(member.record.trial) for member in members)], is_needed=False)]


def _format_confirmation(confirmation: Confirmation | None, metric: Metric) -> str:
    if confirmation is None:
        return "-"
    verdict = "holds" if confirmation.holds else "may not hold"
    return f"{_format_number(confirmation.mean, metric)} ± {metric.format(confirmation.spread)}, {verdict}"


def _format_further(name: str, value: float, test: TestResult) -> str:
    """A further metric on validation data, with its value on test data."""
    tested = test.further.get(name.replace("val_", "test_", 1))
    return f"{value:.4g}, {'n/a' if tested is None else f'{tested:.4g}'}"


def _format_certificate(certificates: Mapping[str, Certificate], id_: str) -> str:
    made = certificates.get(id_)
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
