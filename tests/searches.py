"""Searches without Ray, which the tests share: trials run in this process, one after the other."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.trainable import PruneTrainable
from tune_prune.distributed.tuner import SearchStopper
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo import run_files
from tune_prune.hpo.config import Config
from tune_prune.workflows import search
from tune_prune.workflows.console import SearchConsole

SPACE = """
[task]
model = "toys:mlp"
data = "toys:images"
[space]
pruner = ["mag", "taylor1"]
rounds = 2
steps = 2
final_steps = 10
lr = 0.05
[space.ratio]
"2" = {low = 0.1, high = 0.95}
"4" = {low = 0.0, high = 0.5}
[goal]
acc_tradeoff = 5
budget = 8
[refine]
share = 0.25
rounds = 2
steps = 20
lr = 0.05
[[initial.point]]
ratio = 0.5
"""


class Trials:
    """What Ray does: runs the searcher's trials. `after` is called with the number of those that are done."""

    def __init__(self) -> None:
        self.started = 0
        self.after: Callable[[int], None] = lambda count: None

    def run(
        self, worker_data: WorkerData, searcher: StudySearcher, config: Config, concurrency: int, stop: SearchStopper
    ) -> None:
        number = 0
        while searcher.trials.remaining > 0 and not stop.stop_all():
            number += 1
            suggested = searcher.suggest(f"ray{number}")
            if isinstance(suggested, str):
                return  # it cannot go on
            self.started += 1
            worker = PruneTrainable.__new__(PruneTrainable)
            worker.setup(suggested, worker_data)
            while not (result := worker.step())["done"]:
                if stop(f"ray{number}", result):
                    break
                searcher.on_trial_result(f"ray{number}", result)
            searcher.on_trial_complete(f"ray{number}", result)
            self.after(number)


@contextmanager
def without_ray() -> Iterator[Trials]:
    """A search that runs its trials here."""

    @contextmanager
    def no_ray(*_: object) -> Iterator[int]:
        yield 1

    made = Trials()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "ray_session", no_ray)
        patch.setattr(search, "run_trials", made.run)
        yield made


def searched(toml: Path, name: str = "run", **given: Any) -> tuple[int, Path]:
    """The exit code of a new search, and its run directory. The toys are not trained."""
    settings, space, text = run_files.start_run(str(toml), {"force": True} | given)
    return search.search(settings, space, toml.parent / name, quiet(), text), toml.parent / name


def resumed(run_dir: Path, **given: Any) -> int:
    """The exit code of a search that goes on."""
    return search.search(*run_files.resume_run(run_dir, given, {}), run_dir, quiet())


def quiet() -> SearchConsole:
    return SearchConsole(Console(file=io.StringIO()), quiet=True)


def results(run_dir: Path) -> dict[str, tuple[bytes, int]]:
    """Every result file: what it holds, and when it was written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (run_dir / "results").iterdir()}


def points(run_dir: Path) -> pd.DataFrame:
    """points.csv but for what is never the same twice."""
    return pd.read_csv(run_dir / "points.csv").drop(columns="seconds")


def trials_of(run_dir: Path) -> pd.DataFrame:
    """trials.csv but for what is never the same twice."""
    return pd.read_csv(run_dir / "trials.csv").drop(columns=["seconds", "cpu_seconds"])


def summary_of(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return found
