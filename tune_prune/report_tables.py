"""The tables that a report's charts are drawn from: those of a run directory, as far as they are there and whole."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pandas import DataFrame

POINTS = ("trial", "round", "compression", "factor", "val_error", "feasible")
TRIALS = ("trial", "state", "kind", "compression", "val_error")
MEMBERS = ("id", "trial", "round", "compression", "factor", "val_error")
SENSED = ("layer", "pruner", "ratio", "val_error")

COLUMNS = {"points.csv": POINTS, "trials.csv": TRIALS, "pareto.csv": MEMBERS}
WORDS = {"id": str, "state": str, "kind": str, "layer": str, "pruner": str}
NUMBERS = {*POINTS[:5], *MEMBERS[3:], "test_error", "test_error_low", "test_error_high"}


@dataclass(frozen=True)
class Tables:
    """points.csv with the `state` of each trial, trials.csv, pareto.csv and sensitivity.csv; empty where there is none.

    `missing` names those that are absent or damaged; sensitivity.csv need not be there.
    """

    points: DataFrame
    trials: DataFrame
    members: DataFrame
    sensed: DataFrame
    missing: Sequence[str] = field(default_factory=tuple)


def read(run_dir: Path) -> Tables:
    """What there is of the tables."""
    return tables({name: _text(run_dir / name) for name in (*COLUMNS, "sensitivity.csv")})


def tables(texts: Mapping[str, str | None]) -> Tables:
    """The tables of these files' texts; None is a file that cannot be read."""
    found = {name: _table(texts.get(name), columns) for name, columns in COLUMNS.items()}
    sensed = _table(texts.get("sensitivity.csv"), SENSED)
    missing = [name for name, table in found.items() if table is None]
    points, trials, members = (
        DataFrame(columns=list(COLUMNS[name])) if table is None else table for name, table in found.items()
    )
    points = points.merge(trials[["trial", "state"]].drop_duplicates("trial"), on="trial", how="left")
    return Tables(points, trials, members, DataFrame(columns=list(SENSED)) if sensed is None else sensed, missing)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):  # what is no UTF-8 is a ValueError
        return None


def _table(text: str | None, columns: Sequence[str]) -> DataFrame | None:
    """A CSV file with these columns, numbers where numbers belong; None where it is missing or damaged."""
    if text is None:
        return None
    try:
        if len({len(row) for row in csv.reader(io.StringIO(text), strict=True)}) != 1:
            return None  # cut off within a row
        found = pd.read_csv(io.StringIO(text), dtype=WORDS)
        for name in map(str, found.columns):
            if name.startswith("ratio/") or name in NUMBERS:
                found[name] = pd.to_numeric(found[name])
    except (ValueError, csv.Error):  # what pandas cannot parse is a ValueError
        return None
    if not set(columns) <= set(found.columns):
        return None
    if "feasible" in columns and len(found) and found["feasible"].dtype != bool:
        return None
    return found.astype({"feasible": bool}) if "feasible" in columns else found
