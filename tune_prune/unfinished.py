"""What can be told of a search that has not written its files yet: from its trials' records, while it runs or after."""

from collections import Counter
from pathlib import Path

from pandas import DataFrame

from tune_prune import pareto, records, report_tables, results, space_file
from tune_prune.common.errors import UserError
from tune_prune.records import PointRecord, TrialRecord
from tune_prune.report_files import Found
from tune_prune.report_tables import MEMBERS, Tables


def so_far(run_dir: Path) -> tuple[Found, Tables]:
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
    space = space_file.read(run_dir / "space.toml")
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
        "points.csv": results.points_table(found, labels),
        "trials.csv": results.trials_table(found),
        "pareto.csv": DataFrame(rows, columns=list(rows[0] if rows else MEMBERS)),
    }
    tables = report_tables.tables({name: table.to_csv(index=False) for name, table in written.items()})
    return Found(summary, rows, None, None, []), tables


def _member(number: int, record: TrialRecord, point: PointRecord, labels: tuple[str, ...]) -> dict[str, object]:
    """A row of the front, as in pareto.csv."""
    ratios = {f"ratio/{label}": point.ratios.get(label, 0.0) for label in labels}
    pruners = {f"pruner/{label}": record.pruners.get(label) for label in labels}
    return {
        "id": f"{number:03d}", "trial": record.trial, "round": point.round, "compression": point.compression,
        "factor": point.factor, "val_error": point.val_error, **ratios, **pruners,
    }  # fmt: skip
