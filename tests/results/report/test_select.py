import json
from pathlib import Path

import pandas as pd
import pytest
from toys import fault

from tune_prune.results.front_picture import mark_members
from tune_prune.results.report.select import select_member
from tune_prune.results.run_results import read_run

ROWS = [  # id, compression, factor, val_error, test_error
    ("001", 0.5, 2.0, 0.60, "0.70"),
    ("002", 0.9, 10.0, 0.65, "0.66"),
    ("003", 0.97, 33.3, 0.90, "0.97"),
    ("004", 0.99, 100.0, 1.40, ""),
]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    head = "id,trial,round,compression,factor,val_error,test_error,conf,checkpoint\n"
    lines = [f"{i},7,2,{c},{f},{v},{t},confs/{i}.conf,checkpoints/{i}.safetensors\n" for i, c, f, v, t in ROWS]
    (tmp_path / "pareto.csv").write_text(head + "".join(lines))
    return tmp_path


@pytest.mark.parametrize(
    ("how", "id_"),
    [("knee", "002"), ("factor=30", "003"), ("factor=33.3", "003"), ("factor=1", "001"), ("error=1.0", "003"),
     ("error=0.65", "002"), ("error=5", "004"), ("002", "002"), ("best", "004")],
)  # fmt: skip
def test_what_is_selected(run_dir: Path, how: str, id_: str) -> None:
    found = select_member(run_dir, how)
    assert found["id"] == id_
    assert found["conf"] == str(run_dir / "confs" / f"{id_}.conf")


def test_the_knee_is_that_of_the_report(run_dir: Path) -> None:
    """By the estimates by which the front ascends, not by the counts."""
    table = pd.read_csv(run_dir / "pareto.csv", dtype={"id": str})
    table.assign(val_error_estimate=[0.6, 0.63, 0.65, 1.4]).to_csv(run_dir / "pareto.csv", index=False)
    run = read_run(run_dir, require_summary=False)
    marked = {mark.name: mark.id for mark in mark_members(run.members, run.metric)}
    assert select_member(run_dir, "knee")["id"] == marked["knee"] != "002"


def test_what_cannot_be_selected(run_dir: Path, tmp_path: Path) -> None:
    rule = "give best, knee, factor=30, error=1.0 or a member's id: 001, 002, 003, 004"
    for how in ("005", "factor", "factor=many", "error=nan", "knee=2", ""):
        assert fault(lambda how=how: select_member(run_dir, how)) == f"--select {how}: {rule}"
    assert (
        fault(lambda: select_member(run_dir, "factor=200"))
        == "--select factor=200: the front has none; it goes to 100.0x"
    )
    assert (
        fault(lambda: select_member(run_dir, "error=0.5"))
        == "--select error=0.5: the front has none; it goes to 0.60 %"
    )
    (run_dir / "pareto.csv").write_text("")
    assert "no front to select from; name the directory" in fault(lambda: select_member(run_dir, "knee"))
    (run_dir / "run.json").write_text("{}")
    assert "its search has not ended yet" in fault(lambda: select_member(run_dir, "knee"))


def test_the_command(command, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("report", run_dir, "--select", "factor=20") == 0
    files = f"{run_dir}/confs/003.conf and {run_dir}/checkpoints/003.safetensors"
    printed = capsys.readouterr().out
    assert printed == f"003: 33.3x at 0.90 % validation error, 0.97 % on test images: {files}\n"
    assert command("report", run_dir, "--select", "error=9", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["id"], found["factor"], found["test_error"]) == ("004", 100.0, None)
    assert not (run_dir / "report.html").exists()
