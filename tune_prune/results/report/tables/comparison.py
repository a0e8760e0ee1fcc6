"""The table of several runs beside each other."""

import math
from collections.abc import Sequence
from html import escape

from tune_prune.results.comparison import RunComparison
from tune_prune.results.report.page import Column, format_duration, format_number, make_table
from tune_prune.tasks.metrics import Metric


def make_comparison_table(compared: Sequence[RunComparison], metric: Metric) -> str:
    """The table of runs, as HTML."""
    name = escape(metric.name)
    heads = ["hypervolume", "most compressed", f"its validation {name}", f"its test {name}", "trials", "wall-clock"]
    rows = [
        [
            escape(one.run),
            format_number(one.hypervolume, ".4f"),
            format_number(one.factor, ".1f", "x") if math.isfinite(one.factor) else "nothing",
            *(metric.format(value) if math.isfinite(value) else "" for value in (one.val, one.test)),
            str(one.trials),
            format_duration(one.wall_seconds),
            format_duration(one.cpu_seconds),
        ]
        for one in compared
    ]
    columns = [Column("run", right=False), *map(Column, [*heads, "processor time of trials"])]
    return f'<div class="wide">{make_table(columns, rows, name="runs")}</div>'
