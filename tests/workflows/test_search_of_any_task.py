"""Searches of tasks that are no classification in memory: a loss, a metric and batches of one's own."""

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from rich.console import Console
from searches import SPACE, Trials, points, quiet, resumed, searched, without_ray
from toys import fault

from tune_prune.common.errors import UserError
from tune_prune.common.flags import declared_settings
from tune_prune.common.import_path import NO_CODE
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo import run_files
from tune_prune.pruning import gates, loss_change
from tune_prune.results import conf, test_record
from tune_prune.results.report.select import select_member
from tune_prune.results.run_results import read_run
from tune_prune.tasks import resampling
from tune_prune.tasks.metrics import Metric
from tune_prune.tasks.sample_values import Resamples
from tune_prune.tasks.settings import TaskSettings
from tune_prune.training.resources import pick_device
from tune_prune.workflows import search
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.dry_run import describe_search
from tune_prune.workflows.replay import replay
from tune_prune.workflows.report import write_report

OWN = (
    SPACE.replace(
        """model = "toys:mlp"
data = "toys:images\"""",
        """model = "tasks_of_users:trained_regressor"
data = "tasks_of_users:{data}"
loss = "tasks_of_users:mean_squared"
metric = "tasks_of_users:rmse\"""",
    )
    .replace('"2" =', '"net.0" =')
    .replace('"4" =', '"net.2" =')
    .replace("acc_tradeoff = 5\nbudget = 8", "acc_tradeoff = 0.3\nbudget = 5")
    .replace("steps = 2\n", "steps = 2\ndistill = 0.3\nsample = 64\n")
)


@pytest.fixture(params=["rows", "loaders"])
def space(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace("{data}", request.param))
    return path


def test_a_search_and_the_replay_of_what_it_found(trials: Trials, space: Path, small_statistics: None) -> None:
    code, run = searched(space)
    summary = json.loads((run / "summary.json").read_text())
    assert code == 0
    assert summary["trials"]["failed"] == 0
    best = conf.read(run / "best.conf")
    assert best.notes["task"] == {"loss": "tasks_of_users:mean_squared", "metric": "tasks_of_users:rmse"}
    assert not [one.name for one in replay(best, pick_device("cpu"), run / "best.conf") if one.differs]


def test_without_a_tradeoff_it_is_a_share_of_the_dense_value(
    trials: Trials, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space.write_text(space.read_text().replace("acc_tradeoff = 0.3\n", ""))
    config, chosen, text = run_files.start_run(str(space), {"budget": 2})
    head = describe_search(config, chosen)[0]
    said = io.StringIO()
    run = space.parent / "run"
    search.search(config, chosen, run, SearchConsole(Console(file=said, width=200)), text)
    summary = json.loads((run / "summary.json").read_text())
    tradeoff = float(f"{0.01 * summary['dense']['val_rmse']:.3g}")
    assert summary["acc_tradeoff"] == json.loads((run / "run.json").read_text())["acc_tradeoff"] == tradeoff > 0
    assert f"tradeoff: {tradeoff:g} (1 % of the dense rmse); --acc-tradeoff says another" in said.getvalue()
    assert head.endswith(f"tradeoff {tradeoff:g} (1 % of the dense rmse)")
    resumed(run, budget=3)
    assert json.loads((run / "summary.json").read_text())["acc_tradeoff"] == tradeoff


def test_a_tradeoff_is_of_its_own_metric(space: Path) -> None:
    def start(**given: str) -> float | None:
        return run_files.start_run(str(space), given)[0].acc_tradeoff

    assert start() == start(metric="tasks_of_users:rmse") == 0.3
    assert start(metric="tasks_of_users:closeness", better="higher") is None
    config, chosen, text = run_files.start_run(str(space), {"metric": "tasks_of_users:nothing"})
    for begin in (
        lambda: describe_search(config, chosen),
        lambda: search.search(config, chosen, space.parent / "run", quiet(), text),
    ):
        assert fault(begin) == (
            "--acc-tradeoff is missing: the dense model's validation nothing is 0, of which no share can be given up; "
            "give it, or acc_tradeoff in [goal], in the metric's unit"
        )
    assert not (space.parent / "run").exists()


def test_the_same_seed_finds_the_same(trials: Trials, space: Path) -> None:
    first, second = (searched(space, name, seed=3)[1] for name in ("one", "two"))
    assert points(first).equals(points(second))


def test_a_finished_search_measures_nothing_again(trials: Trials, space: Path) -> None:
    code, run = searched(space)
    before, started = points(run), trials.started
    assert resumed(run) == code
    assert trials.started == started
    assert points(run).equals(before)


def test_a_front_of_another_metric_is_certified(trials: Trials, space: Path, small_statistics: None) -> None:
    _, run = searched(space, certify=0.95, acc_tradeoff=1.0, budget=3)
    summary, front = json.loads((run / "summary.json").read_text()), pd.read_csv(run / "pareto.csv")
    method = "paired bootstrap-t (approximate), rmse is the root of the mean square over samples"
    assert summary["certify_method"] == method
    dense = summary["dense"]["test_rmse"]
    assert (front["certify_bound"] > front["test_rmse"] - dense).all()
    assert front["certified"].any()
    [best] = front[front["id"] == int(summary["certified"])]["certify_bound"]
    assert best <= 1.0
    record = test_record.read(run, Metric("rmse"))
    assert {len(found.values) for found in record.outcomes.values() if not isinstance(found, str)} == {record.images}


def test_a_metric_that_is_no_mean_is_not_certified(trials: Trials, tmp_path: Path) -> None:
    run, said = search_by("largest", tmp_path / "own", acc_tradeoff=3.0, budget=2, certify=0.95)
    assert json.loads((run / "summary.json").read_text())["certified"] is None
    assert "certificates: none, largest is no mean over samples, and most resamples have the same largest" in said


LOSS = """
def loss(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()
"""


def test_another_loss_of_the_same_name_is_refused(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one second may have one cached form
    (tmp_path / "loss_of_a_user.py").write_text(LOSS)
    space = tmp_path / "own.toml"
    text = OWN.replace("{data}", "rows").replace("trained_regressor", "Regressor")
    text = text.replace("tasks_of_users:mean_squared", "loss_of_a_user:loss")
    space.write_text(text.replace('["mag", "taylor1"]', '"mag"'))
    _, run = searched(space, budget=2)
    (tmp_path / "loss_of_a_user.py").write_text(LOSS.replace("square", "abs"))
    sys.modules.pop("loss_of_a_user")
    assert "changed since it was begun: loss code; undo that" in fault(lambda: resumed(run, budget=4))
    (tmp_path / "loss_of_a_user.py").write_text(LOSS)
    sys.modules.pop("loss_of_a_user")
    assert resumed(run, budget=3) in (0, 3)
    sys.modules.pop("loss_of_a_user")


FUNCTIONS = [key for key, each in declared_settings(TaskSettings).items() if each.flag.check("evil:run")]


@pytest.mark.parametrize("key", FUNCTIONS)
def test_no_code_refuses_every_function_that_a_space_names(
    command: Callable[..., object],
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(NO_CODE, "")  # for it to be set back
    Path("evil.py").write_text("raise SystemExit('it ran')")
    data = "torchvision:FakeData(size=10)" if key == "transform" else "mnist"  # which has none
    task = f'[task]\nmodel = "lenet_300_100"\ndata = "{data}"\n{key} = "evil:run"\n'
    Path("own.toml").write_text(task + '[space.ratio]\n"*" = {low = 0.3, high = 0.9}\n')
    assert command("search", "--space", "own.toml", "--budget", 1, "--run-dir", "run", "--no-code") == 2
    assert "'evil:run' names code to be run, which --no-code refuses" in capsys.readouterr().err
    assert not Path("run").exists()


def test_workers_share_tensors_and_open_anything_else_themselves(
    trials: Trials, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[WorkerData] = []
    create = WorkerData.create
    monkeypatch.setattr(WorkerData, "create", lambda *given, **more: made.append(create(*given, **more)) or made[-1])
    searched(space)
    assert (made[0].splits is None) == ("loaders" in space.read_text())
    assert made[0].make_task().train.count == 128


# Which way is better


def search_by(metric: str, folder: Path, **given: Any) -> tuple[Path, str]:
    """The run directory of a search of the toy regression by a metric, and what its console said."""
    folder.mkdir()
    toml = folder / "own.toml"
    toml.write_text(OWN.replace("{data}", "rows").replace("tasks_of_users:rmse", f"tasks_of_users:{metric}"))
    if metric == "closeness":
        toml.write_text(toml.read_text().replace('closeness"', 'closeness"\nbetter = "higher"'))
    settings, space, text = run_files.start_run(str(toml), {"force": True} | given)
    said = io.StringIO()
    console = SearchConsole(Console(file=said, width=200))
    search.search(settings, space, folder / "run", console, text)
    return folder / "run", said.getvalue()


@pytest.fixture(scope="module", params=[0.3, 0.0], ids=["found", "nothing found"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """The same search by a metric and by its negative, of which higher is better; what nothing keeps in the second."""
    folder = tmp_path_factory.mktemp("both")
    with without_ray(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "STEPS", 30)
        patch.setattr(loss_change, "IMAGES", 32)
        return {
            name: search_by(name, folder / name, acc_tradeoff=request.param, budget=6) for name in ("rmse", "closeness")
        }


def comparable(run_dir: Path, name: str, metric: str) -> pd.DataFrame:
    """A table but for what is never the same twice, as the search by rmse writes it."""
    table = pd.read_csv(run_dir / name).drop(columns=["seconds", "cpu_seconds"], errors="ignore")
    if metric == "closeness":
        signed = [column for column in table if "_closeness" in column]
        table = table.assign(**{column: -table[column] for column in signed})
    if "reason" in table:
        table["reason"] = table.reason.notna()  # the words hold values
    names = {"confirm_low": "confirm_high"}
    if metric == "closeness":
        names |= {"test_closeness_low": "test_rmse_high", "test_closeness_high": "test_rmse_low"}
    renamed = table.rename(columns=lambda column: names.get(column, column.replace("closeness", "rmse")))
    return renamed[sorted(renamed)]  # the ends of an interval change places


@pytest.mark.parametrize("name", ["points.csv", "trials.csv", "pareto.csv"])
def test_which_way_is_better_changes_no_table(both: dict[str, tuple[Path, str]], name: str) -> None:
    lower, higher = (comparable(run, name, metric) for metric, (run, _) in both.items())
    pd.testing.assert_frame_equal(lower, higher, check_exact=True)


def test_which_way_is_better_changes_no_study(both: dict[str, tuple[Path, str]]) -> None:
    studies = [optuna.load_study(study_name=None, storage=f"sqlite:///{run}/study.db") for run, _ in both.values()]
    lower, higher = (study.get_trials(deepcopy=False) for study in studies)
    assert len(lower) == len(higher) > 0
    for ours, theirs in zip(lower, higher, strict=True):
        assert (ours.state, ours.values, ours.params) == (theirs.state, theirs.values, theirs.params)
        assert [*ours.constraints.values()] == [*theirs.constraints.values()]


def test_which_way_is_better_changes_no_summary(both: dict[str, tuple[Path, str]]) -> None:
    lower, higher = (json.loads((run / "summary.json").read_text()) for run, _ in both.values())
    assert (lower["metric"], higher["metric"]) == (
        {"name": "rmse", "better": "lower"},
        {"name": "closeness", "better": "higher"},
    )
    assert lower["limit"] == -higher["limit"]
    assert lower["dense"]["test_rmse"] == -higher["dense"]["test_closeness"] > 0
    for key in ("hypervolume", "best", "trials", "early_stopping", "points", "smallest_tradeoff"):
        assert lower[key] == higher[key]
    assert bool(lower["front"]) == (lower["acc_tradeoff"] > 0)


def test_confs_differ_in_names_and_signs_alone(both: dict[str, tuple[Path, str]]) -> None:
    found = [{str(path.relative_to(run)): conf.read(path) for path in run.rglob("*.conf")} for run, _ in both.values()]
    assert found[0].keys() == found[1].keys()
    for name, ours in found[0].items():
        theirs = found[1][name]
        assert (ours.ratios, ours.pruners) == (theirs.ratios, theirs.pruners)
        assert ours.notes["val_rmse"] == -theirs.notes["val_closeness"]  # type: ignore[operator]
        measured = ("val_", "test_", "task")
        assert {key: value for key, value in ours.notes.items() if not key.startswith(measured)} == {
            key: value for key, value in theirs.notes.items() if not key.startswith(measured)
        }


def test_nothing_speaks_of_errors_in_percent(both: dict[str, tuple[Path, str]]) -> None:
    """Neither what the search said, nor its files, nor its report: but for shares of weights, which are percent."""
    run, said = both["rmse"]
    summary, report = (run / "summary.json").read_text(), (run / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<(script|style).*?</\1>", "", report, flags=re.DOTALL)
    for text in (summary, said, page, *(path.read_text() for path in run.glob("*.csv"))):
        assert not re.search(r"error|points of", text)
    assert "error, %" not in report
    assert "validation rmse" in said
    assert "%" not in said.replace("weights (100 %)", "weights").replace("95 %", "")
    assert "val_rmse" in summary
    assert "rmse" in page
    columns = {column for path in run.glob("*.csv") for column in pd.read_csv(path)}
    assert {"val_rmse", "test_rmse", "test_rmse_low", "test_rmse_high"} <= columns


def test_the_interval_of_a_root_mean_square_is_shown_everywhere(both: dict[str, tuple[Path, str]]) -> None:
    for name, (run, said) in both.items():
        summary, report = json.loads((run / "summary.json").read_text()), (run / "report.html").read_text("utf-8")
        method = f"bootstrap (BCa), {name} is the root of the mean square over samples"
        assert summary["test_interval"] == method
        for row in summary["front"]:
            assert row[f"test_{name}_low"] < row[f"test_{name}"] < row[f"test_{name}_high"]
        if summary["front"]:
            assert f"95 % interval of test {name}: {method}" in said
            assert f"95 % interval: {method}.</p>" in report
            assert f"test {name}, 95 % interval" in report


def test_a_metric_that_is_no_mean_has_no_interval_and_it_is_said_why(trials: Trials, tmp_path: Path) -> None:
    run, said = search_by("largest", tmp_path / "own", acc_tradeoff=3.0, budget=2)
    summary = json.loads((run / "summary.json").read_text())
    why = "largest is no mean over samples, and most resamples have the same largest"
    assert summary["test_interval"] == f"none, {why}"
    assert summary["front"]
    assert all(row["test_largest_low"] is row["test_largest_high"] is None for row in summary["front"])
    assert f"95 % interval of test largest: none, {why}" in said
    assert f"95 % interval: none, {why}.</p>" in (run / "report.html").read_text("utf-8")


def test_a_metric_that_is_no_mean_is_certified_by_resamples(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 199)
    run, said = search_by("decibels", tmp_path / "own", acc_tradeoff=30.0, budget=2, certify=0.95)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["test_interval"] == "bootstrap (BCa) of resamples"
    for row in summary["front"]:
        assert row["test_decibels_low"] < row["test_decibels"] < row["test_decibels_high"]
    assert "paired bootstrap of resamples (BCa, approximate), decibels is no mean over samples" in said
    assert summary["certified"] is not None
    record = test_record.read(run, Metric("decibels"))
    assert all(isinstance(found, Resamples) for found in record.outcomes.values())


@pytest.mark.parametrize("intervals", [None, {}, [1], {"ab": {"low": "x", "high": 1.0, "method": ""}}])
def test_what_an_earlier_version_has_tested_has_no_interval(
    both: dict[str, tuple[Path, str]], tmp_path: Path, intervals: object
) -> None:
    run = shutil.copytree(both["rmse"][0], tmp_path / "run")
    record = json.loads((run / "test_results.json").read_text())
    before = test_record.read(run, Metric("rmse"))
    assert before.intervals.keys() == before.metrics.keys()
    record.pop("intervals")
    (run / "test_results.json").write_text(json.dumps(record | ({} if intervals is None else {"intervals": intervals})))
    read = test_record.read(run, Metric("rmse"))
    assert read.metrics == (before.metrics if not intervals else {})  # what is damaged is measured again
    assert not read.intervals
    if not intervals:
        with without_ray():
            resumed(run)
        summary = json.loads((run / "summary.json").read_text())
        assert "test_interval" not in summary
        assert all(row["test_rmse"] > 0 and row["test_rmse_low"] is None for row in summary["front"])


def test_the_report_of_either(both: dict[str, tuple[Path, str]]) -> None:
    for run, _ in both.values():
        read = read_run(run)
        assert read.missing == []
        assert write_report(run).is_file()
        if read.front:
            name = read.metric.name
            worst = float(read.summary["limit"])
            assert select_member(run, f"{name}={worst}")["id"] == read.summary["best"]


def test_runs_by_other_metrics_are_not_compared(both: dict[str, tuple[Path, str]]) -> None:
    with pytest.raises(UserError, match="judged by closeness, higher is better, not by rmse"):
        write_report(both["rmse"][0], [both["closeness"][0]])


def test_the_search_by_another_metric_ends_again_as_it_ended(both: dict[str, tuple[Path, str]]) -> None:
    for run, _ in both.values():
        before = (run / "pareto.csv").read_bytes()
        with without_ray() as trials:
            resumed(run)
        assert trials.started == 0
        assert (run / "pareto.csv").read_bytes() == before
        assert json.loads((run / "test_results.json").read_text())["reads"] == 1
