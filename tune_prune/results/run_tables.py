"""Parses the tables of a run directory, which may be damaged, or another program's."""

import csv
import io
from collections.abc import Sequence

import pandas as pd
from pandas import DataFrame

from tune_prune.results.constraints import LATENCY, MEASURED_LATENCY
from tune_prune.tasks.metrics import ERROR, Metric

TABLES = ("points.csv", "trials.csv", "pareto.csv", "sensitivity.csv")

TEXTS = ("id", "state", "kind", "layer", "pruner", "conf", "checkpoint")
NUMBERS = ("trial", "round", "compression", "factor", "ratio", *LATENCY, MEASURED_LATENCY)


def list_columns(name: str, metric: Metric = ERROR) -> Sequence[str]:
    """The columns without which a table counts as damaged; it may have more."""
    return {
        "points.csv": ("trial", "round", "compression", "factor", metric.val, "feasible"),
        "trials.csv": ("trial", "state", "kind", "compression", metric.val),
        "pareto.csv": ("id", "trial", "round", "compression", "factor", metric.val, "conf", "checkpoint"),
        "sensitivity.csv": ("layer", "pruner", "ratio", metric.val),
    }[name]


def parse_table(name: str, text: str | None, metric: Metric = ERROR) -> DataFrame | None:
    """The table of a CSV file, numbers where numbers belong; None where it is missing, damaged or lacks a column."""
    if text is None:
        return None
    try:
        if len({len(row) for row in csv.reader(io.StringIO(text), strict=True)}) != 1:
            return None  # cut off within a row
        table = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(TEXTS, str))
        numbers = {*NUMBERS, metric.val, metric.test, f"{metric.test}_low", f"{metric.test}_high"}
        for column in map(str, table.columns):
            if column.startswith("ratio/") or column in numbers:
                table[column] = pd.to_numeric(table[column])
    except (ValueError, csv.Error):  # what pandas cannot parse is a ValueError
        return None
    columns = list_columns(name, metric)
    if not set(columns) <= set(table.columns):
        return None
    if "feasible" not in columns:
        return table
    return table.astype({"feasible": bool}) if not len(table) or table["feasible"].dtype == bool else None


def fill_table(name: str, table: DataFrame | None, metric: Metric) -> DataFrame:
    """The table, or one without rows in its place."""
    if table is not None:
        return table
    empty = DataFrame(columns=[*list_columns(name, metric)])
    return empty.astype({"feasible": bool}) if "feasible" in empty else empty
