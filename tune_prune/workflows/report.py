"""Writes the report of a run, whether its search has ended or still runs."""

from collections.abc import Sequence
from pathlib import Path

from tune_prune.hpo import run_files, space_reader
from tune_prune.hpo.importance import parameter_importance
from tune_prune.results.report import html
from tune_prune.results.run_results import SearchDescription, is_partial


def write_report(run_dir: Path, compare: Sequence[Path] = ()) -> Path:
    """Writes report.html in a run directory, with the runs in `compare` in its charts; returns its path.

    Raises `UserError` where summary.json cannot be read, in any of the directories, and for a search that still runs
    where no round has ended yet.
    """
    search = _describe_search(run_dir) if is_partial(run_dir) else None
    return html.write_report(run_dir, compare, search=search, find_shares=parameter_importance)


def _describe_search(run_dir: Path) -> SearchDescription:
    space = space_reader.read(run_dir / "space.toml")
    acc_tradeoff = run_files.read_acc_tradeoff(run_dir, space)
    return SearchDescription(space.model, space.data, acc_tradeoff, tuple(space.objectives))
