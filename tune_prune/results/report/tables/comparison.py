"""The table of several runs side by side, within a limit that is the same for all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from tune_prune.results.constraints import Constraints
from tune_prune.results.report.charts.search import hypervolume_within
from tune_prune.results.report.page import Column, format_duration, format_number, make_table
from tune_prune.results.report.tables.facts import format_value
from tune_prune.results.run_results import RunResults, to_float


@dataclass(frozen=True)
class RunComparison:
    """What a run reached within a common limit; NaN where it is not known, `best` is None where nothing keeps it."""

    name: str
    trials: int
    wall_seconds: float
    cpu_seconds: float
    hypervolume: float
    best: Mapping[str, object] | None


def compare_runs(runs: Mapping[str, RunResults], limits: Constraints) -> list[RunComparison]:
    """Compares runs by name, each by the members of its front that keep these limits."""
    found = []
    for name, run in runs.items():
        cost = limits.metric.cost(1.0) * run.members[limits.metric.val]
        known = math.isfinite(limits.max_cost)
        kept = run.members[cost <= limits.max_cost] if known else run.members
        best = kept.sort_values("factor").to_dict("records")[-1] if len(kept) else None
        found.append(
            RunComparison(
                name=name,
                trials=len(run.trials),
                wall_seconds=to_float(run.summary.get("wall_seconds")),
                cpu_seconds=float(run.trials.cpu_seconds.sum()) if "cpu_seconds" in run.trials else math.nan,
                hypervolume=hypervolume_within(run.members, limits) if known else math.nan,
                best=None if best is None else {str(key): value for key, value in best.items()},
            )
        )
    return found


def make_comparison(runs: Mapping[str, RunResults], limits: Constraints) -> str:
    """The table of runs by name, as HTML."""
    metric, rows = limits.metric, []
    for one in compare_runs(runs, limits):
        best = one.best or {}
        rows.append(
            [
                escape(one.name),
                str(one.trials),
                format_duration(one.wall_seconds),
                format_duration(one.cpu_seconds),
                format_number(one.hypervolume, ".4f"),
                format_number(to_float(best.get("factor")), ".1f", "x") if best else "nothing",
                format_value(best, metric, metric.val) if best else "",
                format_value(best, metric, metric.test) if best else "",
            ]
        )
    name = escape(metric.name)
    heads = ["trials", "wall-clock", "processor time", "hypervolume", "most compressed", f"its validation {name}"]
    columns = [Column("run", right=False), *map(Column, [*heads, f"its test {name}"])]
    return f'<div class="wide">{make_table(columns, rows)}</div>'
