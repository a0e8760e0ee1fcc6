from dataclasses import replace
from pathlib import Path

import pytest
from toys import ended, fault

from tune_prune.results import records
from tune_prune.workflows import report
from tune_prune.workflows.report import write_report

SPACE = '[task]\nmodel = "lenet5"\ndata = "mnist"\n[space.ratio]\n"*" = {low = 0.1, high = 0.9}\n'


def partial_run(run_dir: Path, space: str = SPACE) -> Path:
    """Two trials of a search that still runs; the second costs fewer multiply-adds, and is worse otherwise."""
    for record, macs in ((ended(0, (0.5, 0.8), (0.9, 1.0)), 0.6), (ended(1, (0.8, 1.2), state="running"), 0.1)):
        points = [replace(point, costs={"macs": macs, "bytes": 1000.0}) for point in record.points]
        records.write(run_dir, replace(record, points=points))
    (run_dir / "space.toml").write_text(space)
    return run_dir


@pytest.mark.parametrize(
    ("goal", "front"),
    [("", ["0, 1", "0, 2"]), ('[goal]\nobjectives = ["macs"]\n', ["0, 1", "1, 1", "0, 2"])],
)
def test_a_search_that_still_runs_shows_the_front_over_its_objectives(
    tmp_path: Path, goal: str, front: list[str]
) -> None:
    page = write_report(partial_run(tmp_path, SPACE + goal)).read_text()
    assert "lenet5 on mnist" in page
    assert "Unfinished: 2 trials so far, 10.0x at 1.00&nbsp;% validation error." in page
    cells = [page.index(f'<td class="right">{trial}</td>') for trial in front]
    assert cells == sorted(cells)
    assert page.count('<td class="right">1, 1</td>') == front.count("1, 1")


@pytest.mark.parametrize(
    ("run_json", "shown"),
    [('{"acc_tradeoff": 0.25}', "0.25"), ('{"acc_tradeoff": null}', "0.5"), ("{", "0.5"), (None, "0.5")],
)
def test_a_search_that_still_runs_shows_the_tradeoff_it_was_begun_with(
    tmp_path: Path, run_json: str | None, shown: str
) -> None:
    partial_run(tmp_path, SPACE + "[goal]\nacc_tradeoff = 0.5\n")
    if run_json is not None:
        (tmp_path / "run.json").write_text(run_json)
    page = write_report(tmp_path).read_text()
    assert f"{shown} points" in page


def test_what_a_space_names_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_lab.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    named = SPACE.replace("lenet5", "evil_lab:f").replace("mnist", "evil_lab:f")
    page = write_report(partial_run(tmp_path, named + '[space]\npruner = "evil_lab:f"\n')).read_text()
    assert "evil_lab:f on evil_lab:f" in page


def test_a_search_that_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "space.toml").write_text(SPACE)
    assert "no round of any trial has ended yet; wait for the first" in fault(lambda: write_report(tmp_path))


def test_the_importance_of_parameters_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "parameter_importance", lambda trials, members, metric: {"lr": 0.25, "distill": 0.75})
    page = write_report(partial_run(tmp_path)).read_text()
    assert "Which parameters matter most" in page
    assert "distill" in page
