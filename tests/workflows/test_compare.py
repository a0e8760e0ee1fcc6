"""Several runs beside each other: one limit for all, a table, a picture and a page."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from toys import ended, fault

from tune_prune.results import pareto, records
from tune_prune.results.report.charts import figures
from tune_prune.workflows.compare import compare, describe_comparison

SPACE = '[task]\nmodel = "lenet5"\ndata = "mnist"\n[space.ratio]\n"*" = {low = 0.1, high = 0.9}\n'


def make_run(path: Path, *points: tuple[float, float], limit: float = 1.5, name: str = "error") -> Path:
    """A run that has ended, with a front of these points: (compression, validation metric)."""
    path.mkdir()
    rows = [
        {
            "id": f"{number:03}", "trial": number, "round": 1, "compression": compression,
            "factor": 1 / (1 - compression), f"val_{name}": value, f"test_{name}": value + 0.1,
            f"test_{name}_low": value, f"test_{name}_high": value + 0.2, "conf": None, "checkpoint": None,
        }
        for number, (compression, value) in enumerate(points, start=1)
    ]  # fmt: skip
    front = pd.DataFrame(rows)
    front.to_csv(path / "pareto.csv", index=False)
    front.assign(feasible=True).to_csv(path / "points.csv", index=False)
    states = front.assign(state="complete", kind="explore", cpu_seconds=30.0)
    states.to_csv(path / "trials.csv", index=False)
    metric = {} if name == "error" else {"metric": {"name": name, "better": "lower"}}
    summary = {"model": "lenet5", "data": "mnist", "limit": limit, "dense": {f"val_{name}": 1.0}, "wall_seconds": 3725}
    (path / "summary.json").write_text(json.dumps(summary | {"acc_tradeoff": limit - 1.0, "front": rows} | metric))
    return path


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """The second one's limit is looser: its last point would break that of the first."""
    first = make_run(tmp_path / "first", (0.5, 1.0), (0.9, 1.2))
    return [first, make_run(tmp_path / "second", (0.8, 1.1), (0.99, 1.9), limit=2.0)]


def test_the_strictest_limit_counts_for_all(two: list[Path], tmp_path: Path) -> None:
    (first, second), _ = compare(two, tmp_path / "out")
    assert (first.factor, first.val, first.test) == (pytest.approx(10), 1.2, pytest.approx(1.3))
    assert (second.factor, second.val) == (pytest.approx(5), 1.1)
    assert first.hypervolume == pytest.approx(pareto.hypervolume([(0.5, 1.0), (0.9, 1.2)], 1.5))
    assert second.hypervolume == pytest.approx(pareto.hypervolume([(0.8, 1.1)], 1.5))
    assert first.cpu_seconds == 60


def test_a_limit_that_is_given_counts(two: list[Path], tmp_path: Path) -> None:
    first, second = compare(two, tmp_path / "out", limit=1.05)[0]
    assert first.factor == pytest.approx(2)
    assert (second.hypervolume, math.isnan(second.factor)) == (0, True)
    assert compare(two, tmp_path / "out", limit=3.0)[0][1].factor == pytest.approx(100)


def test_a_search_that_still_runs_is_compared_within_the_limit_of_the_other(tmp_path: Path) -> None:
    running = tmp_path / "running"
    (running / "results").mkdir(parents=True)
    records.write(running, replace(ended(0, (0.8, 1.1)), state="running"))
    (running / "space.toml").write_text(SPACE)
    (running / "run.json").write_text("{}")
    found, _ = compare([running, make_run(tmp_path / "ended", (0.9, 1.2))], tmp_path / "out")
    assert found[0].hypervolume == pytest.approx(pareto.hypervolume([(0.8, 1.1)], 1.5))
    assert math.isnan(found[0].wall_seconds)
    alone, _ = compare([running, running], tmp_path / "out")
    assert math.isnan(alone[0].hypervolume)  # no run knows a limit


def test_runs_of_other_metrics_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / "a", (0.5, 1.0)), make_run(tmp_path / "b", (0.5, 1.0), name="rmse")]
    assert "b: judged by rmse" in fault(lambda: compare(paths, tmp_path / "out"))
    assert "name two or more" in fault(lambda: compare(paths[:1], tmp_path / "out"))
    assert "not there" in fault(lambda: compare([*paths, tmp_path / "nowhere"], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plotly", [True, False])
def test_the_command_writes_a_table_a_picture_and_a_page(
    two: list[Path], tmp_path: Path, command, capsys: pytest.CaptureFixture[str], monkeypatch, plotly: bool
) -> None:
    monkeypatch.setattr(figures, "has_plotly", lambda: plotly)
    out = tmp_path / "out"
    assert command("compare", *two, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "trials", "time", "hypervolume", "factor", "val", "error", "test", "error"]
    assert lines[2].split()[:3] == ["second", "2", "1:02:05"]
    assert max(map(len, lines[:3])) <= 80
    table = pd.read_csv(out / "comparison.csv")
    assert table.run.tolist() == ["first", "second"]
    assert table.val_error.tolist() == [1.2, 1.1]
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "comparison.html").read_text()
    assert ("chart-fronts" in page, "<img alt" in page) == (plotly, not plotly)
    assert "Hypervolume: the share of the possible area" in page


def test_as_json(two: list[Path], tmp_path: Path, command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("compare", *two, "--out", tmp_path / "out", "--limit", "1.05", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["run"] for one in found] == ["first", "second"]
    assert (found[1]["factor"], found[1]["hypervolume"]) == (None, 0.0)


def test_names_of_directories_cannot_add_to_the_page(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, (0.5, 1.0)) for name in ("<script>alert(1)<", "_$x$")]
    found, metric = compare(paths, tmp_path / "out")
    assert "<script>alert" not in (tmp_path / "out" / "comparison.html").read_text()
    assert len(describe_comparison(found, metric)) == 3
