"""Compares the fronts of several runs within limits that are the same for all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pandas import DataFrame

from tune_prune.common.errors import UserError
from tune_prune.results import pareto
from tune_prune.results.constraints import Constraints
from tune_prune.results.run_results import RunResults, to_float
from tune_prune.results.tables import read_judged
from tune_prune.tasks.metrics import Metric


@dataclass(frozen=True)
class RunComparison:
    """What a run reached within common limits; NaN where it is not known.

    `factor`, `val` and `test` are those of the most compressed member of its front that keeps the limits, all NaN where
    none does; the last two in the metric's unit.
    """

    run: str
    trials: int
    wall_seconds: float
    cpu_seconds: float
    hypervolume: float
    factor: float
    val: float
    test: float

    def to_row(self, metric: Metric) -> dict[str, Any]:
        """Its row of comparison.csv; None where a value is not known."""
        names = {"val": metric.val, "test": metric.test}
        row = {names.get(name, name): value for name, value in vars(self).items()}
        return {name: None if value != value else value for name, value in row.items()}


def check_comparable(name: str, run: RunResults, others: Mapping[str, RunResults], where: str = "") -> None:
    """Raises a `UserError` where another run is judged by another metric; `where` begins its message."""
    for other_name, other in others.items():
        if other.metric != run.metric:
            judged = f"{other.metric.name}, {other.metric.better} is better"
            raise UserError(f"{where}{other_name}: judged by {judged}, not by {run.metric.name} as {name}")


def find_common_limits(runs: Mapping[str, RunResults], limit: float | None = None) -> Constraints:
    """The limits within which all of these runs can be compared: the given one, else the strictest of theirs.

    NaN where none of the runs knows its limit, as one that has not ended.
    """
    known = [run.limits for run in runs.values() if math.isfinite(run.limits.limit)]
    if not known:
        return next(iter(runs.values())).limits
    cost = known[0].metric.cost
    strictest = min(known, key=lambda limits: limits.max_cost)
    ideal = min((limits.ideal for limits in known), key=cost)
    return replace(strictest, limit=strictest.limit if limit is None else limit, ideal=ideal)


def compare_runs(runs: Mapping[str, RunResults], limits: Constraints) -> list[RunComparison]:
    """Compares runs by name, each by the members of its front that keep these limits; of unknown limits, by all."""
    return [_compare_run(name, run, limits) for name, run in runs.items()]


def _compare_run(name: str, run: RunResults, limits: Constraints) -> RunComparison:
    metric, known = limits.metric, math.isfinite(limits.max_cost)
    costs = metric.cost(1.0) * run.members[metric.val].astype(float)
    kept = run.members[costs <= limits.max_cost] if known else run.members
    best = kept.iloc[int(kept.factor.astype(float).to_numpy().argmax())].to_dict() if len(kept) else {}
    return RunComparison(
        run=name,
        trials=len(run.trials),
        wall_seconds=to_float(run.summary.get("wall_seconds")),
        cpu_seconds=float(run.trials.cpu_seconds.sum()) if "cpu_seconds" in run.trials else math.nan,
        hypervolume=hypervolume_within(run.members, limits) if known else math.nan,
        factor=to_float(best.get("factor")),
        val=to_float(best.get(metric.val)),
        test=to_float(best.get(metric.test)),
    )


def hypervolume_within(points: DataFrame, limits: Constraints) -> float:
    """The hypervolume of points within the limit; 0 where that is unknown, or leaves no area."""
    return limits.hypervolume(list_pairs(points, limits.metric)) if math.isfinite(limits.limit) else 0.0


def list_pairs(points: DataFrame, metric: Metric) -> list[pareto.Point]:
    """(compression, metric as a cost) of each point, by the metric's estimate where there is one."""
    costs = metric.cost(1.0) * read_judged(points, metric)
    return [*zip(points.compression.astype(float), costs, strict=True)]
