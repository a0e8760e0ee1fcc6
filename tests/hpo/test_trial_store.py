"""What a study is refused for that is not as a search has written it."""

import json
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest
from drivers import LIMIT, Driver
from toys import fault

from tune_prune.hpo import storage
from tune_prune.hpo.phases import Features
from tune_prune.hpo.study import open_study
from tune_prune.results.constraints import Constraints


def opened(run_dir: Path) -> Driver:
    """The search in a run directory, whose trials start from rounds of others."""
    study = open_study(storage.open_file(run_dir), "tune_prune", run_dir, {"space": "of the test"}, Constraints(LIMIT))
    return Driver(run_dir, study, features=Features(early_stopping=False))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of three trials that have ended, and one that runs and was killed."""
    folder = tmp_path_factory.mktemp("searched")
    driver = opened(folder)
    driver.run(3)
    assert driver.suggest()["start"] is not None
    return folder


@pytest.fixture
def run_dir(searched: Path, tmp_path: Path) -> Path:
    """A copy of that search, of the test's own."""
    return shutil.copytree(searched, tmp_path, dirs_exist_ok=True)


def test_what_was_written_is_read_again(run_dir: Path) -> None:
    driver = opened(run_dir)
    assert len(driver.trials.records) == 3
    assert driver.suggest()["trial"] == 3


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("trial_user_attributes", "value_json", '"x"'),
        ("trial_user_attributes", "value_json", "["),
        ("trial_user_attributes", "value_json", "null"),
        ("trial_user_attributes", "key", "nix"),
        ("trial_params", "param_value", 7.0),
        ("trial_params", "param_value", float("inf")),
        ("trial_user_attributes", "value_json", "[" * 100_000),
        ("trial_params", "param_name", "nix"),
        ("trial_params", "distribution_json", "[]"),
        ("trial_params", "distribution_json", '{"name": "IntDistribution", "attributes": {"low": 0, "high": 9}}'),
        ("trial_values", "value_type", "nix"),
        ("trials", "state", "WAITING"),
        ("trials", "state", "nix"),
        ("trials", "number", 9),
        ("trials", "datetime_start", "nix"),
        ("study_directions", "direction", "MINIMIZE"),
        ("study_directions", "direction", "nix"),
        ("study_user_attributes", "value_json", "["),
    ],
)
def test_a_row_that_no_search_has_written(run_dir: Path, table: str, column: str, value: object) -> None:
    with sqlite3.connect(run_dir / "study.db") as database:
        database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = (SELECT max(rowid) FROM {table})", (value,))
        if (table, column) == ("study_directions", "direction"):
            database.execute(f"UPDATE {table} SET {column} = ?", (value,))
    database.close()
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    said = fault(lambda: opened(run_dir))
    assert said.startswith(f"{run_dir / 'study.db'}: damaged (")
    assert said.endswith("); put a copy back, or begin again with a new --run-dir")
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("changed", [{"at_most": {"macs": 9.0}}, {"objectives": ("macs",)}])
def test_a_record_without_the_costs_that_are_limited(run_dir: Path, changed: Mapping[str, object]) -> None:
    """What a record lacks is found when it is read, not when its trial enters the study."""
    driver = opened(run_dir)
    store = driver.trials._trial_store
    store._limits = Constraints(LIMIT, **changed)  # type: ignore[arg-type]
    said = fault(lambda: store._check_record(driver.trials.records[0]))
    assert said == (
        f"{run_dir}/results/0.json: damaged trial record (round 1 has no macs); delete it and its trial is run again"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"val_metric": float("nan")}, "it is complete, and its last round has no error"),
        ({"compression": float("inf")}, "round 2 has no compression"),
        ({"ratios": {"2": float("nan")}}, "round 2 has no ratio/2"),
    ],
)
def test_a_round_that_no_trial_measures(run_dir: Path, wrong: Mapping[str, object], said: str) -> None:
    path = run_dir / "results" / "1.json"
    record = json.loads(path.read_text())
    record["points"][-1] |= wrong
    path.write_text(json.dumps(record))
    assert fault(lambda: opened(run_dir)) == (
        f"{path}: damaged trial record ({said}); delete it and its trial is run again"
    )


def test_a_start_from_a_round_that_is_not_there_is_one_from_the_dense_model(run_dir: Path) -> None:
    with sqlite3.connect(run_dir / "study.db") as database:
        database.execute("UPDATE trial_user_attributes SET value_json = '7' WHERE key = 'parent_round'")
    database.close()
    assert opened(run_dir).suggest()["start"] is None


def test_a_start_from_a_round_without_weights_is_one_from_the_dense_model(run_dir: Path) -> None:
    number = opened(run_dir).suggest()["start"].trial
    path = run_dir / "results" / f"{number}.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"points": [point | {"checkpoint": None} for point in record["points"]]}))
    assert opened(run_dir).suggest()["start"] is None


def test_a_complete_record_without_rounds(run_dir: Path) -> None:
    path = run_dir / "results" / "1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"points": []}))
    assert "it is complete, and its last round has no error" in fault(lambda: opened(run_dir))
