"""The table of all trials of a search, with a field that filters it."""

from collections.abc import Callable
from html import escape

import pandas as pd

from tune_prune.results.report.charts.style import describe_parameter
from tune_prune.results.report.page import Column, format_number, make_table
from tune_prune.results.report.tables.facts import format_value
from tune_prune.results.report.tables.front import MOST_LAYERS
from tune_prune.results.run_results import Row, RunResults, to_float

MOST_TRIALS = 2000
"""The most trials that the page lists, the last ones; trials.csv has all."""

FILTER = """<div class="filter" data-table="trials" hidden><input type="search" aria-label="filter trials"
placeholder="words that a row must have, e.g. stopped"> <output></output></div>"""


def make_trials_section(run: RunResults) -> str:
    """The section of all trials: state, last point, why it was stopped, parameters; empty where there is none."""
    table = run.trials.tail(MOST_TRIALS)
    if not len(table):
        return ""
    names = [str(name) for name in table.columns]
    params = names[names.index("state") + 1 : names.index("compression")]
    fixed = [name for name in params if table[name].nunique(dropna=False) == 1 and len(table) > 1]
    params = [name for name in params if name not in fixed]
    ratios = [name for name in params if name.startswith("ratio/")]
    cells: dict[Column, Callable[[Row], str]] = {
        Column("trial"): lambda row: _text(row.get("trial")),
        Column("kind", right=False): lambda row: _text(row.get("kind")),
        Column("state", right=False): lambda row: _text(row.get("state")),
        Column("fewer weights"): lambda row: format_number(to_float(row.get("factor")), ".1f", "x"),
        Column(f"validation {escape(run.metric.name)}"): lambda row: format_value(row, run.metric, run.metric.val),
        Column("within the limit", right=False): lambda row: {"True": "yes", "False": "no"}.get(
            str(row.get("feasible")), ""
        ),
        Column("why it ended early", right=False): lambda row: f'<div class="reason">{_text(row.get("reason"))}</div>',
        Column("rounds"): lambda row: _text(row.get("rounds_done")),
        Column("seconds"): lambda row: format_number(to_float(row.get("seconds")), ".0f"),
        Column("started from trial"): lambda row: _text(row.get("parent")),
    }
    for name in params:
        if name in ratios and len(ratios) <= MOST_LAYERS:
            layer = name.removeprefix("ratio/")
            cells[Column(escape(layer), group="removed, %, in layer")] = _make_ratio_cell(name)
        elif name not in ratios:
            cells[Column(escape(name))] = _make_cell(name)
    trials: list[Row] = [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False, name=None)]
    rows = [[show(row) for show in cells.values()] for row in trials]
    notes = [f"The last {MOST_TRIALS:,} of {len(run.trials):,}."] if len(run.trials) > MOST_TRIALS else []
    alike = [f"{describe_parameter(name)} {_text(table[name].iloc[0])}" for name in fixed if table[name].notna().all()]
    notes += [f"The same in all: {', '.join(alike)}."] if alike else []
    words = f'<p class="note">{escape(" ".join(notes))}</p>\n' if notes else ""
    inside = make_table([*cells], rows, name="trials")
    return f'<h2>All trials</h2>\n{words}{FILTER}\n<div class="wide tall">{inside}</div>'


def _make_ratio_cell(name: str) -> Callable[[Row], str]:
    return lambda row: format_number(100 * to_float(row.get(name)), ".1f")


def _make_cell(name: str) -> Callable[[Row], str]:
    return lambda row: _text(row.get(name))


def _text(value: object) -> str:
    """A cell of trials.csv as HTML: whole numbers without a point, other numbers with four digits."""
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return ""
    return f"{value:.4g}" if isinstance(value, float) and not value.is_integer() else _whole(value)


def _whole(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else escape(str(value))
