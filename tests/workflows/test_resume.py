"""Resuming runs that somebody else made, whose files are of different times, or whose directory has an odd name."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from searches import SPACE, Trials, points, results, resumed, searched, summary_of, without_ray
from toys import fault

SMALL = SPACE.replace("budget = 8", "budget = 4")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished search, not to be touched, and its study after two trials."""
    toml = tmp_path_factory.mktemp("original") / "toy.toml"
    toml.write_text(SMALL)
    with without_ray() as trials:
        study = toml.parent / "run" / "study.db"
        trials.after = lambda count: shutil.copy(study, toml.parent / "older.db") if count == 2 else None
        assert searched(toml, max_concurrent=1)[0] == 0
    return toml.parent / "run"


@pytest.fixture
def finished(original: Path, tmp_path: Path) -> Path:
    """The directory of a finished search."""
    return Path(shutil.copytree(original, tmp_path / "run"))


def change(path: Path, **values: Any) -> None:
    """Changes a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_record_that_names_a_file_elsewhere_deletes_nothing(finished: Path, trials: Trials) -> None:
    precious = finished.parent / "precious.txt"
    precious.write_text("mine")
    record = finished / "results" / "3.json"
    point = json.loads(record.read_text())["points"][-1]
    dominated = point | {"checkpoint": str(precious), "val_metric": 99.0, "compression": 0.01, "feasible": False}
    change(record, points=[dominated])
    assert fault(lambda: resumed(finished, budget=5)).startswith(f"{record}: damaged trial record (the checkpoint of")
    assert (precious.read_text(), trials.started) == ("mine", 0)


def test_a_run_creates_no_study_elsewhere(finished: Path, trials: Trials) -> None:
    elsewhere = finished.parent / "new.db"
    change(finished / "run.json", storage=f"sqlite:///{elsewhere}", study="x")
    assert "run.json does not choose where" in fault(lambda: resumed(finished))
    assert not elsewhere.exists()


def test_a_newer_record_stays_as_it_is(finished: Path, trials: Trials) -> None:
    change(finished / "results" / "1.json", energy=3.0)
    before = results(finished)
    assert "a newer version of tune-prune wrote this record" in fault(lambda: resumed(finished, budget=5))
    assert (results(finished), trials.started) == (before, 0)


def test_an_older_study_beside_newer_records(original: Path, finished: Path, trials: Trials) -> None:
    shutil.copy(original.parent / "older.db", finished / "study.db")
    before = results(finished)
    said = fault(lambda: resumed(finished, budget=5))
    assert said.startswith(f"{finished}/results/2.json: the study has 2 trials, not this one")
    assert (results(finished), trials.started) == (before, 0)
    for name in ("2.json", "3.json"):
        (finished / "results" / name).unlink()
    assert resumed(finished) == 0
    assert trials.started == 2
    assert points(finished).equals(points(original))


def test_a_study_with_other_parameters(finished: Path, trials: Trials) -> None:
    database = sqlite3.connect(finished / "study.db")
    with database:
        database.execute("UPDATE trial_params SET param_value = 0.3 WHERE param_name = 'keep/2' AND trial_id = 2")
    database.close()
    said = fault(lambda: resumed(finished))
    assert said.startswith(f"{finished}/results/1.json: the study has another trial 1 (ratio/2 differ); put the study")
    assert trials.started == 0


@pytest.mark.parametrize("name", ["a?b=c", "%41", "{x}", "a b+c", "größer №5", "[red]#;&'\"", "100%", "*"])
def test_a_directory_of_any_name(tmp_path: Path, original: Path, trials: Trials, name: str) -> None:
    toml = tmp_path / "toy.toml"
    toml.write_text(SMALL)
    code, run_dir = searched(toml, name, max_concurrent=1)
    assert (code, run_dir) == (0, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"toy.toml", name}
    assert (run_dir / "study.db").is_file()
    assert points(run_dir).equals(points(original))
    assert resumed(run_dir, budget=5) == 0
    assert (trials.started, summary_of(run_dir)["budget"]) == (5, 5)


@pytest.mark.parametrize(
    "value", ["3", "{}", '{"levels": [7], "curves": {}}', '{"levels": [], "curves": {"2": {"scale": "x"}}}']
)
def test_a_study_whose_initial_levels_are_damaged(finished: Path, trials: Trials, value: str) -> None:
    with sqlite3.connect(finished / "study.db") as database:
        database.execute("UPDATE study_user_attributes SET value_json = ? WHERE key = 'initial'", (value,))
    database.close()
    assert fault(lambda: resumed(finished, budget=5)).startswith(f"{finished / 'study.db'}: damaged (")
    assert trials.started == 0
