import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pandas import DataFrame
from toys import ended, fault

from tune_prune.results import records, run_tables, tables
from tune_prune.results.front import find_front
from tune_prune.results.run_results import (
    SearchDescription,
    is_partial,
    read_run,
    summary_front,
)
from tune_prune.results.run_tables import list_columns, parse_table

SEARCH = SearchDescription("lenet5", "mnist", 0.5)
TABLES = {
    "points.csv": "trial,round,compression,factor,val_error,feasible,ratio/8\n0,1,0.5,2.0,0.8,True,0.5\n",
    "trials.csv": "trial,state,kind,compression,val_error,pruner\n0,stopped,explore,0.5,0.8,mag\n",
    "pareto.csv": "id,trial,round,compression,factor,val_error,test_error,conf,checkpoint\n"
    "001,0,1,0.5,2.0,0.8,,confs/001.conf,checkpoints/001.safetensors\n",
    "sensitivity.csv": "layer,pruner,ratio,val_error\n8,mag,0.5,0.9\n",
}
MEMBER = {
    "id": "001", "trial": 0, "round": 1, "compression": 0.5, "factor": 2.0, "val_error": 0.8, "test_error": None,
    "conf": "confs/001.conf", "checkpoint": "checkpoints/001.safetensors",
}  # fmt: skip
SUMMARY = {"model": "lenet5", "front": [MEMBER], "best": "001"}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "confs").mkdir()
    (tmp_path / "confs" / "001.conf").write_text("8\n0.5\nmag\n")
    return tmp_path


def test_a_run_directory(run_dir: Path) -> None:
    run = read_run(run_dir)
    assert run.summary == SUMMARY
    assert run.front == [MEMBER]
    assert run.points.to_dict("records") == [
        {"trial": 0, "round": 1, "compression": 0.5, "factor": 2.0, "val_error": 0.8, "feasible": True, "ratio/8": 0.5,
         "state": "stopped"}
    ]  # fmt: skip
    assert run.trials.pruner.tolist() == ["mag"]
    assert run.sensitivity.layer.tolist() == ["8"]  # a name, not a number
    assert run.confs == {"001": "8\n0.5\nmag\n"}
    assert not run.partial
    absent = ["pareto.png", "best.conf", "checkpoints/001.safetensors"]
    assert [name for name in run.missing if not name.endswith("summary.json")] == absent


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside.conf", "summary.json", "confs/../summary.json"])
def test_a_member_names_no_other_file(run_dir: Path, name: str) -> None:
    (run_dir.parent / "outside.conf").write_text("mine")
    (run_dir / "pareto.csv").write_text(TABLES["pareto.csv"].replace("confs/001.conf", name))
    assert name in read_run(run_dir).missing


@pytest.mark.parametrize("name", ["best.conf", "confs", "summary.json"])
def test_links_out_of_the_directory_are_not_read(run_dir: Path, tmp_path: Path, name: str) -> None:
    outside = Path(shutil.copytree(run_dir, tmp_path / "outside"))
    run = Path(shutil.copytree(outside, tmp_path / "run"))
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside / name)
    said = f"{run / name}: a link out of this directory, which is not followed; put a copy in its place"
    assert fault(lambda: read_run(run)) == said


@pytest.mark.parametrize("name", run_tables.TABLES)
def test_every_table_needs_its_columns(name: str) -> None:
    whole = parse_table(name, TABLES[name])
    assert whole is not None
    for column in list_columns(name):
        assert parse_table(name, whole.drop(columns=column).to_csv(index=False)) is None
    assert parse_table(name, whole[:0].to_csv(index=False)) is not None  # a run may have no rows
    assert parse_table(name, TABLES[name][:-4] + ",") is None
    assert parse_table(name, "") is None
    assert parse_table(name, None) is None


def test_a_front_that_cannot_be_read_is_that_of_the_summary(run_dir: Path) -> None:
    (run_dir / "pareto.csv").write_text("id,trial\n001,4\n")
    run = read_run(run_dir)
    assert run.front == [MEMBER]
    assert "pareto.csv" in run.missing
    (run_dir / "summary.json").write_text(json.dumps(SUMMARY | {"front": [{"id": ["no member"]}]}))
    assert read_run(run_dir).front == []


def test_a_run_without_sensitivity_misses_nothing(run_dir: Path) -> None:
    (run_dir / "sensitivity.csv").unlink()
    run = read_run(run_dir)
    assert len(run.sensitivity) == 0
    assert "sensitivity.csv" not in run.missing


def test_curves_are_of_one_model_on_one_data_set(run_dir: Path) -> None:
    rows = ["net,abc,8,mag,0.5,0.9", "net,abd,8,mag,0.5,0.7", "net,abd,10,mag,0.5,0.8"]
    (run_dir / "sensitivity.csv").write_text("\n".join(["model,weights,layer,pruner,ratio,val_error", *rows, ""]))
    assert read_run(run_dir).sensitivity.val_error.tolist() == [0.7, 0.8]  # of the weights that came last


def test_a_summary_may_be_left_out_where_it_is_not_needed(run_dir: Path) -> None:
    (run_dir / "summary.json").unlink()
    assert "summary.json: not there" in fault(lambda: read_run(run_dir))
    assert read_run(run_dir, require_summary=False).front == [MEMBER]


def partial_run(run_dir: Path) -> Path:
    """Two trials; the second costs fewer multiply-adds and is worse in compression and error."""
    for record, macs in ((ended(0, (0.5, 0.8), (0.9, 1.0)), 0.6), (ended(1, (0.8, 1.2), state="running"), 0.1)):
        points = [replace(point, costs={"macs": macs, "bytes": 1000.0}) for point in record.points]
        records.write(run_dir, replace(record, points=points))
    return run_dir


def test_a_search_that_still_runs(tmp_path: Path) -> None:
    assert not is_partial(tmp_path)
    assert is_partial(partial_run(tmp_path))
    run = read_run(tmp_path, SEARCH)
    assert run.partial
    assert run.missing == []
    assert run.summary["trials"] == {"complete": 1, "running": 1}
    assert run.summary["points"] == 3
    assert [row["id"] for row in summary_front(run.summary)] == ["001", "002"]
    assert run.summary["best"] == "002"
    assert run.members.compression.tolist() == [0.5, 0.9]
    assert run.members["ratio/2"].tolist() == [0.5, 0.9]
    assert run.members["pruner/2"].tolist() == ["mag", "mag"]
    assert [(row["conf"], row["checkpoint"]) for row in run.front] == [(None, None)] * 2
    assert run.points.state.tolist() == ["complete", "complete", "running"]
    (tmp_path / "summary.json").write_text("{}")
    assert not is_partial(tmp_path)
    assert not read_run(tmp_path, SEARCH).partial


def test_the_front_of_a_search_that_still_runs_is_one_over_its_objectives(tmp_path: Path) -> None:
    run = read_run(partial_run(tmp_path), replace(SEARCH, objectives=("macs",)))
    assert run.members.compression.tolist() == [0.5, 0.8, 0.9]
    assert run.members.macs.tolist() == [0.6, 0.1, 0.6]


def test_a_search_that_still_runs_without_a_feasible_point(tmp_path: Path) -> None:
    records.write(tmp_path, ended(0, (0.5, 9.0)))
    run = read_run(tmp_path, SEARCH)
    assert (run.front, run.summary["best"]) == ([], None)
    assert set(list_columns("pareto.csv")) <= set(run.members.columns)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    found = [ended(0, (0.5, 0.8), (0.9, 1.0)), ended(1)]
    rows = [tables.member_row(member, {}) for member in find_front(found)]
    written = {
        "points.csv": tables.points_table(found, ["2"]),
        "trials.csv": tables.trials_table(found),
        "pareto.csv": DataFrame(rows),
    }
    for name, table in written.items():
        read = parse_table(name, table.to_csv(index=False))
        assert read is not None
        assert len(read) == len(table)
    assert math.isnan(read.test_error[0])
