"""What a report finds in a run directory, and what it does not find there.

The tables that a report's charts are drawn from: those of a run directory, as far as they are there and whole.

What can be told of a search that has not written its files yet: from its trials' records, while it runs or after.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame

from tune_prune.common.errors import UserError
from tune_prune.hpo import space_reader
from tune_prune.results import pareto, records, tables
from tune_prune.results.records import PointRecord, TrialRecord

Row = Mapping[str, Any]

KEYS = ("model", "data", "acc_tradeoff", "dense", "trials", "front", "best", "wall_seconds", "versions")
FRONT_COLUMNS = ("id", "trial", "round", "compression", "factor", "val_error", "conf", "checkpoint")
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Found:
    """What is there: the front's rows with JSON values, or text from pareto.csv; the PNG's bytes, best.conf's text.

    `missing` names what is absent or damaged, files relative to the run directory.
    """

    summary: Row
    front: Sequence[Row]
    picture: bytes | None
    best_conf: str | None
    missing: Sequence[str]


def read_run(run_dir: Path) -> Found:
    """Read what a report needs; a `UserError` where summary.json cannot be read, without which there is no report."""
    summary = _read_summary(run_dir / "summary.json")
    table = _read_front(run_dir / "pareto.csv")
    front = rows_of(summary) if table is None else table
    picture = _read_bytes(run_dir / "pareto.png")
    if picture is not None and not (picture.startswith(PNG_START) and picture.endswith(PNG_END)):
        picture = None
    best = _read_bytes(run_dir / "best.conf")
    absent = {"pareto.csv": table, "pareto.png": picture, "best.conf": best}
    linked = [str(row[kind]) for row in front for kind in ("conf", "checkpoint") if row.get(kind)]
    missing = [
        *(f"{key} in summary.json" for key in KEYS if key not in summary),
        *(name for name, content in absent.items() if content is None),
        *(name for name in linked if not (run_dir / name).is_file()),
    ]
    return Found(summary, front, picture, None if best is None else best.decode("utf-8", "replace"), missing)


def mapping(row: Row, key: str) -> Row:
    """A row's value that should be a mapping; empty where it is none."""
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def rows_of(summary: Row) -> list[Row]:
    """The front as summary.json lists it, without ratios."""
    front = summary.get("front")
    return [row for row in front if isinstance(row, dict)] if isinstance(front, list) else []


def _read_summary(path: Path) -> Row:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; name the directory of a search that has finished") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); --resume the search to have it written again") from error
    if not isinstance(summary, dict):
        raise UserError(f"{path}: damaged (no JSON object); --resume the search to have it written again")
    return summary


def _read_front(path: Path) -> list[Row] | None:
    """The rows of pareto.csv; None where it is missing or damaged."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
    except (OSError, ValueError, csv.Error):
        return None
    whole = all(None not in row and None not in row.values() for row in rows)  # None: too many cells, or too few
    return [*rows] if whole and set(FRONT_COLUMNS) <= set(reader.fieldnames or ()) else None


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


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


def read_tables(run_dir: Path) -> Tables:
    """What there is of the tables."""
    return parse_tables({name: _text(run_dir / name) for name in (*COLUMNS, "sensitivity.csv")})


def parse_tables(texts: Mapping[str, str | None]) -> Tables:
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


def read_unfinished(run_dir: Path) -> tuple[Found, Tables]:
    """What a report shows of it; its front is of validation errors, and has no files.

    Raises `UserError` where no trial has measured anything yet, or a record is damaged.
    """
    found = records.read_all(run_dir)
    points = [(record, point) for record in found for point in record.points]
    if not points:
        raise UserError(f"{run_dir}: no round of any trial has ended yet; wait for the first")
    chosen = [(record, point) for record, point in points if point.feasible]
    front = [chosen[i] for i in pareto.front([(point.compression, point.val_error) for _, point in chosen])]
    labels = tuple(points[0][1].ratios)
    rows = [_member(number, *one, labels) for number, one in enumerate(front, 1)]
    space = space_reader.read(run_dir / "space.toml")
    summary = {
        "unfinished": True,
        "model": space.model,
        "data": space.data,
        "acc_tradeoff": space.acc_tradeoff,
        "dense": {},
        "trials": dict(Counter(record.state for record in found)),
        "points": len(points),
        "front": rows,
        "best": rows[-1]["id"] if rows else None,
    }
    written = {
        "points.csv": tables.points_table(found, labels),
        "trials.csv": tables.trials_table(found),
        "pareto.csv": DataFrame(rows, columns=list(rows[0] if rows else MEMBERS)),
    }
    texts = {name: table.to_csv(index=False) for name, table in written.items()}
    return Found(summary, rows, None, None, []), parse_tables(texts)


def _member(number: int, record: TrialRecord, point: PointRecord, labels: tuple[str, ...]) -> dict[str, object]:
    """A row of the front, as in pareto.csv."""
    ratios = {f"ratio/{label}": point.ratios.get(label, 0.0) for label in labels}
    pruners = {f"pruner/{label}": record.pruners.get(label) for label in labels}
    return {
        "id": f"{number:03d}", "trial": record.trial, "round": point.round, "compression": point.compression,
        "factor": point.factor, "val_error": point.val_error, **ratios, **pruners,
    }  # fmt: skip
