"""Another member of a front than the most compressed: the knee, one of so many times fewer weights, one of an error."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from tune_prune.common.errors import UserError
from tune_prune.results import pareto, run_results

CHOICES = "knee, factor=30 or error=1.0"


def select_member(run_dir: Path, how: str) -> dict[str, Any]:
    """The member that `how` asks for, as pareto.csv has it, with paths of its files from the working directory.

    `knee` is the one farthest from the line between the front's ends (`pareto.knee`); `factor=F` has the lowest
    validation error of those with at least F times fewer weights; `error=E` the fewest weights of those with a
    validation error of at most E percent. Raises `UserError` where there is none such, no front, or another `how`.
    """
    members = run_results.read_tables(run_dir).members
    if not len(members):
        told = "no front to pick from; name the directory of a search that found one"
        raise UserError(f"{run_dir / 'pareto.csv'}: {told}")
    row = members.iloc[_index(members, how)]
    found = {str(name): None if pd.isna(value) else value for name, value in row.items()}
    return found | {kind: str(run_dir / str(found[kind])) for kind in ("conf", "checkpoint") if found.get(kind)}


def _index(members: pd.DataFrame, how: str) -> int:
    """The row that is asked for."""
    name, _, value = how.partition("=")
    if how == "knee":
        points = zip(members.compression.astype(float), members.val_error.astype(float), strict=True)
        return pareto.knee([*points])
    try:
        wanted = float(value)
    except ValueError:
        wanted = math.nan
    if name not in ("factor", "error") or not math.isfinite(wanted):
        raise UserError(f"--select {how}: give {CHOICES}")
    chosen = members.factor >= wanted if name == "factor" else members.val_error <= wanted
    if not chosen.any():
        far = f"{members.factor.max():.1f}x" if name == "factor" else f"{members.val_error.min():.2f} %"
        raise UserError(f"--select {how}: the front has none; it goes to {far}")
    # of what was not chosen, the worst there can be
    if name == "factor":
        return int(members.val_error.where(chosen, math.inf).to_numpy().argmin())
    return int(members.factor.where(chosen, 0.0).to_numpy().argmax())


def describe_member(found: dict[str, Any]) -> str:
    """What to say of a member."""
    test = "" if found.get("test_error") is None else f", {found['test_error']:.2f} % on test images"
    files = " and ".join(found[kind] for kind in ("conf", "checkpoint") if found.get(kind))
    return f"{found['id']}: {found['factor']:.1f}x at {found['val_error']:.2f} % validation error{test}: {files}"
