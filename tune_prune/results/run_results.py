"""Reads a run directory, whether its search has ended or still runs, as far as its files are there and whole."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.common.parsing import read_json
from tune_prune.results import records, tables
from tune_prune.results.constraints import NO_CONSTRAINTS, Constraints, find_ideal
from tune_prune.results.front import BEST_CONF, CLOSEST_CONF, find_front
from tune_prune.results.run_tables import TABLES, fill_table, list_columns, parse_table
from tune_prune.results.sensitivity_table import SUBJECT
from tune_prune.tasks import metrics
from tune_prune.tasks.metrics import ERROR, Metric

Row = Mapping[str, Any]

SUMMARY_KEYS = ("model", "data", "acc_tradeoff", "dense", "trials", "front", "best", "wall_seconds", "versions")
FRONT_FILE = r"(confs|checkpoints)/[^/]+$"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class SearchDescription:
    """What a search that still runs is for: `acc_tradeoff` in the metric's unit, `objectives` the costs to minimise.

    The tradeoff is None where it is not known.
    """

    model: str
    data: str
    acc_tradeoff: float | None
    objectives: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunResults:
    """The content of a run directory; what is missing or damaged is empty, or None.

    `summary` is summary.json. `members` is pareto.csv, or the front in summary.json where that cannot be read; `points`
    is points.csv with the `state` of each trial; `trials` and `sensitivity` are the files of these names. `confs` are
    the texts of the members' .conf files by id, `conf` name and text of best.conf, or of closest.conf where
    the front is empty, `picture` the bytes of pareto.png.
    `missing` names what is absent or damaged, files relative to the run directory. In `partial` results, of a search
    that still runs, the front has no test results and no files. `metric` is what the run is judged by; tables have its
    columns.
    """

    summary: dict[str, Any]
    members: DataFrame
    points: DataFrame
    trials: DataFrame
    sensitivity: DataFrame
    confs: Mapping[str, str]
    conf: tuple[str, str] | None
    picture: bytes | None
    missing: Sequence[str]
    partial: bool = False
    metric: Metric = ERROR

    @property
    def limits(self) -> Constraints:
        """The limit on the metric, and the rectangle of the hypervolume; NaN where the summary does not say."""
        dense = to_float(get_mapping(self.summary, "dense").get(self.metric.val))
        ideal = find_ideal(self.metric, dense, to_float(self.summary.get("acc_tradeoff")))
        return Constraints(to_float(self.summary.get("limit")), metric=self.metric, ideal=ideal)

    @property
    def front(self) -> list[Row]:
        """The members one by one, ascending in compression; None where a cell is empty."""
        rows = self.members.to_dict("records")
        return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def is_partial(run_dir: Path) -> bool:
    """Whether a search has begun in a run directory and not ended."""
    begun = (run_dir / "results").is_dir() or (run_dir / "run.json").is_file()
    return begun and not (run_dir / "summary.json").exists()


def read_metric(run_dir: Path) -> Metric:
    """What a run is judged by, as summary.json says, else run.json, which is there from the beginning."""
    for name in ("summary.json", "run.json"):
        try:
            raw = read_json(run_dir / name)
        except (OSError, ValueError):
            continue
        if isinstance(raw, dict) and "metric" in raw:
            return metrics.read_metric(raw["metric"])
    return ERROR


def read_run(run_dir: Path, search: SearchDescription | None = None, *, require_summary: bool = True) -> RunResults:
    """Reads a run directory; with the description of its `search`, also one whose search still runs.

    Raises `UserError` where summary.json is required and cannot be read, for a search that still runs where no round
    has ended or a record is damaged, and where a link leads out of the directory, whose files another person may read.
    """
    files.check_contained(run_dir)
    if search is not None and is_partial(run_dir):
        return _read_partial(run_dir, search)
    summary = _read_summary(run_dir / "summary.json") if require_summary else {}
    metric = read_metric(run_dir)
    found = {name: parse_table(name, _read_text(run_dir / name), metric) for name in TABLES}
    missing = [name for name, table in found.items() if table is None and name != "sensitivity.csv"]
    if found["pareto.csv"] is None:
        found["pareto.csv"] = parse_table("pareto.csv", DataFrame(summary_front(summary)).to_csv(index=False), metric)
    members = fill_table("pareto.csv", found["pareto.csv"], metric)
    closest = not len(members) and bool(get_mapping(summary, "closest"))
    conf_name = CLOSEST_CONF if closest else BEST_CONF
    picture, conf = _read_bytes(run_dir / "pareto.png"), _read_bytes(run_dir / conf_name)
    if picture is not None and not (picture.startswith(PNG_START) and picture.endswith(PNG_END)):
        picture = None
    linked = [str(path) for kind in ("conf", "checkpoint") for path in members[kind].dropna()]
    missing += ["pareto.png"] if picture is None else []
    missing += [conf_name] if conf is None and (closest or len(members)) else []
    return RunResults(
        summary=summary,
        members=members,
        points=_with_states(found, metric),
        trials=fill_table("trials.csv", found["trials.csv"], metric),
        sensitivity=_select_newest(fill_table("sensitivity.csv", found["sensitivity.csv"], metric)),
        metric=metric,
        confs=_read_confs(run_dir, members),
        conf=None if conf is None else (conf_name, conf.decode("utf-8", "replace")),
        picture=picture,
        missing=[
            *(f"{key} in summary.json" for key in SUMMARY_KEYS if key not in summary),
            *missing,
            *(name for name in linked if not re.match(FRONT_FILE, name) or not (run_dir / name).is_file()),
        ],
    )


def _read_partial(run_dir: Path, search: SearchDescription) -> RunResults:
    """Makes the tables of a search that still runs from its trials' records."""
    found = records.read_all(run_dir)
    every = [point for record in found for point in record.points]
    if not every:
        raise UserError(f"{run_dir}: no round of any trial has ended yet; wait for the first")
    metric = read_metric(run_dir)
    members = find_front(found, replace(NO_CONSTRAINTS, objectives=search.objectives, metric=metric))
    without_files = {"conf": None, "checkpoint": None}
    rows = [tables.member_row(member, {}, metric=metric) | without_files for member in members]
    written = {
        "points.csv": tables.points_table(found, tuple(every[0].ratios), metric),
        "trials.csv": tables.trials_table(found, metric),
        "pareto.csv": DataFrame(rows, columns=[*(rows[0] if rows else list_columns("pareto.csv", metric))]),
    }
    parsed = {name: parse_table(name, table.to_csv(index=False), metric) for name, table in written.items()}
    points, fields = _with_states(parsed, metric), ("trial", "round", "ratio/", "pruner/")
    layers = points[[name for name in points if str(name).startswith(fields)]]
    return RunResults(
        summary={
            "model": search.model,
            "data": search.data,
            "acc_tradeoff": search.acc_tradeoff,
            "objectives": list(search.objectives),
            "metric": metric.to_dict(),
            "trials": dict(Counter(record.state for record in found)),
            "points": len(every),
            "front": rows,
            "best": rows[-1]["id"] if rows else None,
        },
        members=fill_table("pareto.csv", parsed["pareto.csv"], metric).merge(layers, on=["trial", "round"], how="left"),
        points=points,
        trials=fill_table("trials.csv", parsed["trials.csv"], metric),
        sensitivity=fill_table("sensitivity.csv", None, metric),
        metric=metric,
        confs={},
        conf=None,
        picture=None,
        missing=[],
        partial=True,
    )


def get_mapping(row: Row, key: str) -> Row:
    """A row's value that should be a mapping; empty where it is none."""
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def summary_front(summary: Row) -> list[Row]:
    """The front as summary.json lists it, without ratios."""
    front = summary.get("front")
    return [row for row in front if isinstance(row, dict)] if isinstance(front, list) else []


def to_float(value: object) -> float:
    """The number that a JSON value or a table's cell holds; NaN where it holds none."""
    try:
        return float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def _with_states(found: Mapping[str, DataFrame | None], metric: Metric) -> DataFrame:
    """points.csv with the `state` of each trial."""
    points, trials = (fill_table(name, found[name], metric) for name in ("points.csv", "trials.csv"))
    return points.merge(trials[["trial", "state"]].drop_duplicates("trial"), on="trial", how="left")


def _select_newest(table: DataFrame) -> DataFrame:
    """The rows of sensitivity.csv that were measured of the same model on the same data as the last row."""
    subject = table[[name for name in SUBJECT if name in table]]
    return table if table.empty else table[(subject == subject.iloc[-1]).all(axis=1)]


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; name the directory of a search that has finished") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); --resume the search to have it written again") from error
    if not isinstance(summary, dict):
        raise UserError(f"{path}: damaged (no JSON object); --resume the search to have it written again")
    return summary


def _read_confs(run_dir: Path, members: DataFrame) -> dict[str, str]:
    paths = {str(id_): run_dir / "confs" / f"{id_}.conf" for id_ in members["id"] if str(id_).isdigit()}
    found = {id_: _read_bytes(path) for id_, path in paths.items()}
    return {id_: content.decode("utf-8", "replace") for id_, content in found.items() if content is not None}


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _read_text(path: Path) -> str | None:
    content = _read_bytes(path)
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None
