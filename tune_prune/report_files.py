"""What a report finds in a run directory, and what it does not find there."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_prune.common.errors import UserError

Row = Mapping[str, Any]

KEYS = ("model", "data", "acc_tradeoff", "dense", "trials", "front", "best", "wall_seconds", "versions")
COLUMNS = ("id", "trial", "round", "compression", "factor", "val_error", "conf", "checkpoint")
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


def find(run_dir: Path) -> Found:
    """Read what a report needs; a `UserError` where summary.json cannot be read, without which there is no report."""
    summary = _read_summary(run_dir / "summary.json")
    table = _read_front(run_dir / "pareto.csv")
    front = rows_of(summary) if table is None else table
    picture = _read(run_dir / "pareto.png")
    if picture is not None and not (picture.startswith(PNG_START) and picture.endswith(PNG_END)):
        picture = None
    best = _read(run_dir / "best.conf")
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
    return [*rows] if whole and set(COLUMNS) <= set(reader.fieldnames or ()) else None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
