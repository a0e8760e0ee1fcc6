"""The run directory that the fuzzer damages: a search of a toy, interrupted after four trials, one of them running."""

import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from tune_prune.common.flags import build
from tune_prune.hpo import run_files, space_reader, storage
from tune_prune.hpo.config import Config
from tune_prune.hpo.phases import Features
from tune_prune.hpo.study import open_study
from tune_prune.results.constraints import Constraints

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from drivers import LIMIT, Driver

SPACE = """
[task]
model = "lenet_300_100"
data = "mnist"
[space]
pruner = ["mag", "taylor1"]
rounds = 2
lr = {low = 0.01, high = 0.1, log = true}
[space.ratio]
"*" = {low = 0.3, high = 0.98}
"""

TABLES = (
    "trials", "trial_params", "trial_user_attributes", "trial_values", "trial_system_attributes", "studies",
    "study_directions", "study_user_attributes", "study_system_attributes",
)  # fmt: skip
"""The tables of study.db that hold what the search has written."""


def begin(folder: Path) -> None:
    """Writes space.toml and run.json, as a new search does."""
    space = space_reader.parse(SPACE, "toy", "toy.toml")
    settings = {"budget": 12, "acc_tradeoff": 0.5, "pruners": ("mag", "l1"), "time_budget": 60.0}
    run_files.save_run(folder, build(Config, settings), space, SPACE)


def search(folder: Path) -> None:
    """Runs four trials whose records are written by hand, and cuts a fifth one off."""
    driver = _open(folder)
    driver.run(4)
    driver.suggest()
    driver.trials.records.clear()
    _close(driver)


def resume(folder: Path) -> None:
    """Takes the search up again: recovers what was cut off, and draws the next trial."""
    driver = _open(folder)
    try:
        for _ in range(2):
            number = driver.trials.start_next()
            if number is not None:
                driver.trials.worker_config(number)
    finally:
        _close(driver)


def write_cells(study: Path, cells: Sequence[tuple[int, int, int, object]]) -> None:
    """Replaces cells of study.db: (table, row, column, value), of which the first three may be any numbers."""
    with sqlite3.connect(study) as database:
        for table, row, column, value in cells:
            name = TABLES[table % len(TABLES)]
            columns = [found[1] for found in database.execute(f"PRAGMA table_info({name})")]
            rows = [found[0] for found in database.execute(f"SELECT rowid FROM {name}")]
            if rows:
                changed = f"UPDATE OR IGNORE {name} SET {columns[column % len(columns)]} = ? WHERE rowid = ?"
                try:
                    database.execute(changed, (value, rows[row % len(rows)]))
                except sqlite3.IntegrityError:  # what SQLite itself refuses cannot be in the file
                    continue
    database.close()


def _open(folder: Path) -> Driver:
    study = open_study(storage.open_file(folder), "tune_prune", folder, {"space": "of the fuzzer"}, Constraints(LIMIT))
    return Driver(folder, study, features=Features(early_stopping=False))


def _close(driver: Driver) -> None:
    opened = driver.study._storage  # the file is replaced afterwards
    getattr(opened, "_backend", opened).engine.dispose()
