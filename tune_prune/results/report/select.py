"""Selects a member of a front: its best, its knee, one by its id, its factor or its metric."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from tune_prune.common.errors import UserError, format_names
from tune_prune.results import pareto
from tune_prune.results.run_results import is_partial, read_run
from tune_prune.results.tables import read_judged
from tune_prune.tasks.metrics import ERROR, Metric


def select_member(run_dir: Path, how: str) -> dict[str, Any]:
    """Selects the member that `how` names: its row of pareto.csv, with paths of its files from the working directory.

    An id, such as `004`, is a member's; `best` is the most compressed one; `knee` is the member farthest from the line
    between the front's ends (`pareto.knee`); `factor=F` has the best
    validation metric of those with at least F times fewer weights; `error=E` has the fewest weights of those with a
    validation error of at most E percent, and so has any other metric by its name. Raises `UserError` for another
    `how`, where no member fits, and where there is no front.
    """
    run = read_run(run_dir, require_summary=False)
    if not run.front:
        problem = "no front to select from; name the directory of a search that found one"
        if is_partial(run_dir):
            problem = "its search has not ended yet, and a front is selected from at its end"
        raise UserError(f"{run_dir / 'pareto.csv'}: {problem}")
    member = dict(run.front[_index(run.members, how, run.metric)])
    return member | {kind: str(run_dir / str(member[kind])) for kind in ("conf", "checkpoint") if member.get(kind)}


def _index(members: pd.DataFrame, how: str, metric: Metric) -> int:
    """The index of the member that `how` names."""
    name, _, value = how.partition("=")
    costs = metric.cost(1.0) * members[metric.val].astype(float)
    if how in [*members["id"]]:
        return [*members["id"]].index(how)
    if how == "best":
        return int(members.compression.astype(float).to_numpy().argmax())
    if how == "knee":
        judged = metric.cost(1.0) * read_judged(members, metric)  # by which the front ascends, as in the report
        return pareto.knee([*zip(members.compression.astype(float), judged, strict=True)])
    try:
        bound = float(value)
    except ValueError:
        bound = math.nan
    if name not in ("factor", metric.name) or not math.isfinite(bound):
        example = f"{metric.name}={1.0 if metric == ERROR else 0.5}"
        ids = format_names(members["id"])
        raise UserError(f"--select {how}: give best, knee, factor=30, {example} or a member's id: {ids}")
    chosen = members.factor >= bound if name == "factor" else costs <= metric.cost(bound)
    if not chosen.any():
        far = f"{members.factor.max():.1f}x" if name == "factor" else metric.format(metric.value(costs.min()))
        raise UserError(f"--select {how}: the front has none; it goes to {far}")
    # the worst value that there can be in place of what was not chosen
    if name == "factor":
        return int(costs.where(chosen, math.inf).to_numpy().argmin())
    return int(members.factor.where(chosen, 0.0).to_numpy().argmax())


def describe_member(member: dict[str, Any], metric: Metric = ERROR) -> str:
    """A member in a line: id, factor, metric and files."""
    test = "" if member.get(metric.test) is None else f", {metric.format(member[metric.test])} on test images"
    files = " and ".join(member[kind] for kind in ("conf", "checkpoint") if member.get(kind))
    measured = metric.describe(member[metric.val], "validation")
    return f"{member['id']}: {member['factor']:.1f}x at {measured}{test}: {files}"
