"""Writes or serves the report of a run, whether its search has ended or still runs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tune_prune.common.errors import UserError
from tune_prune.hpo import run_files, space_reader
from tune_prune.hpo.importance import parameter_importance
from tune_prune.results.report import html
from tune_prune.results.run_results import SearchDescription, is_partial
from tune_prune.workflows.watch import LivePage, watch


def write_report(run_dir: Path, compare: Sequence[Path] = ()) -> Path:
    """Writes report.html in a run directory, with the runs in `compare` in its charts; returns its path.

    Raises `UserError` where summary.json cannot be read, in any of the directories, and for a search that still runs
    where no round has ended yet.
    """
    return html.write_report(run_dir, compare, search=find_search(run_dir), find_shares=parameter_importance)


def watch_report(run_dir: Path, compare: Sequence[Path], say: Callable[[str], None]) -> None:
    """Serves the report of a run until the process is interrupted, anew whenever a round has ended; writes nothing.

    Raises `UserError` for a directory that is no run.
    """
    if not (run_dir / "summary.json").exists() and not is_partial(run_dir):
        raise UserError(f"{run_dir}: no run; name the directory of a search")

    def make(script: str) -> str:
        found = find_search(run_dir)
        return html.make_report(run_dir, compare, search=found, find_shares=parameter_importance, watch=script)

    watch(LivePage([run_dir, *compare], make), say)


def find_search(run_dir: Path) -> SearchDescription | None:
    """What a search that still runs is for; None for one that has ended."""
    if not is_partial(run_dir):
        return None
    space = space_reader.read(run_dir / "space.toml")
    acc_tradeoff = run_files.read_acc_tradeoff(run_dir, space)
    return SearchDescription(space.model, space.data, acc_tradeoff, tuple(space.objectives))
