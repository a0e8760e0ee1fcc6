"""Compares the fronts of several runs: a table, a picture and a page."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from pandas import DataFrame

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.results.comparison import RunComparison, check_comparable, compare_runs, find_common_limits
from tune_prune.results.comparison_plot import draw_comparison
from tune_prune.results.constraints import Constraints
from tune_prune.results.report.comparison import describe_runs, make_comparison_page
from tune_prune.results.report.html import name_runs
from tune_prune.results.run_results import RunResults, read_run
from tune_prune.tasks.metrics import Metric
from tune_prune.workflows.report import find_search
from tune_prune.workflows.watch import LivePage, watch


def compare(run_dirs: Sequence[Path], out: Path, limit: float | None = None) -> tuple[list[RunComparison], Metric]:
    """Compares runs, and writes comparison.csv, comparison.png and comparison.html into the folder `out`.

    `limit` is the worst validation metric that counts, else the strictest limit of the runs. Returns what each run
    reached, and the metric that all are judged by. Raises `UserError` for a directory that is no run, for fewer than
    two, and for runs that are judged by different metrics.
    """
    runs, limits = _read_runs(run_dirs, limit)
    compared = compare_runs(runs, limits)
    picture, page = _make_page(runs, limits)
    table = DataFrame([one.to_row(limits.metric) for one in compared], dtype=object)
    out.mkdir(parents=True, exist_ok=True)
    files.write_bytes(out / "comparison.csv", table.to_csv(index=False).encode("utf-8", "replace"))
    files.write_bytes(out / "comparison.png", picture)
    files.write_bytes(out / "comparison.html", page.encode("utf-8", "replace"))
    return compared, limits.metric


def describe_comparison(compared: Sequence[RunComparison], metric: Metric) -> list[str]:
    """The lines of a table of runs, narrow enough for a terminal of 80 columns."""
    rows = [["run", "trials", "time", "hypervolume", "factor", f"val {metric.name}", f"test {metric.name}"]]
    for one in compared:
        factor = f"{one.factor:.1f}x" if math.isfinite(one.factor) else "none"
        values = [metric.format(value) if math.isfinite(value) else "n/a" for value in (one.val, one.test)]
        volume = f"{one.hypervolume:.4f}" if math.isfinite(one.hypervolume) else "n/a"
        rows.append([one.run, str(one.trials), _format_time(one.wall_seconds), volume, factor, *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]) for name, *cells in rows]


def _format_time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) else "n/a"


def watch_comparison(run_dirs: Sequence[Path], limit: float | None, say: Callable[[str], None]) -> None:
    """Serves the comparison until the process is interrupted, anew whenever a round of a run has ended."""
    for run_dir in run_dirs:
        if not run_dir.is_dir():
            raise UserError(f"{run_dir}: no run; name the directory of a search")
    watch(LivePage(run_dirs, lambda script: _make_page(*_read_runs(run_dirs, limit), script)[1]), say)


def _read_runs(run_dirs: Sequence[Path], limit: float | None) -> tuple[dict[str, RunResults], Constraints]:
    if len(run_dirs) < 2:
        raise UserError(f"{len(run_dirs)} run given; name two or more to compare")
    runs = {name: read_run(path, find_search(path)) for name, path in name_runs(run_dirs).items()}
    first = next(iter(runs))
    check_comparable(first, runs[first], runs)
    return runs, find_common_limits(runs, limit)


def _make_page(runs: Mapping[str, RunResults], limits: Constraints, script: str = "") -> tuple[bytes, str]:
    """The picture, and the page."""
    picture = draw_comparison(runs, limits, describe_runs(runs))
    return picture, make_comparison_page(runs, limits, picture, script)
