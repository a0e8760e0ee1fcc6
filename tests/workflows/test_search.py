"""The search without Ray: its trials run here, one after the other. With Ray: test_launch.py."""

import io
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
import toys
from deadlines import scaled
from filelock import FileLock
from rich.console import Console
from searches import SPACE, Trials, points, quiet, results, resumed, searched, summary_of, trials_of, without_ray
from torch import nn
from toys import ended, fault, images, mlp, seeded

from tune_prune.common.errors import HeldError, UserError
from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo import budget, checkpoint_store, run_files
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.early_stopping import EarlyStopping
from tune_prune.hpo.space import Space
from tune_prune.hpo.trial_store import MAX_STARTS, TrialStore
from tune_prune.hpo.trials import TrialConfig
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results import conf, forecast, records, test_record
from tune_prune.results.estimates import Estimates
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Data
from tune_prune.tasks.task import Task
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe
from tune_prune.training.resources import Resources
from tune_prune.workflows import confirm, console, finalize, preparation, profiling, progress, search
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.replay import replay


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished search, not to be touched."""
    toml = tmp_path_factory.mktemp("original") / "toy.toml"
    toml.write_text(SPACE)
    with without_ray() as trials:
        code, run_dir = searched(toml, max_concurrent=1)
        assert (code, trials.started) == (0, 8)
    return run_dir


@pytest.fixture
def finished(original: Path, tmp_path: Path) -> Path:
    """The directory of a finished search."""
    return Path(shutil.copytree(original, tmp_path / "finished"))


# From beginning to end


def chosen(run_dir: Path) -> dict[str, object]:
    """What a search has tried, and what it has chosen of that."""
    conf_files = [*sorted((run_dir / "confs").iterdir()), run_dir / "best.conf"]
    front = pd.read_csv(run_dir / "pareto.csv", dtype=str)
    return {
        "points": pd.read_csv(run_dir / "points.csv", dtype=str).drop(columns=["seconds"], errors="ignore").to_csv(),
        "front": front.drop(columns=[name for name in front if name.startswith("test_")]).to_csv(),
        "files": [re.sub(r"^# (data|test_error.*) = .*$", "", path.read_text(), flags=re.M) for path in conf_files],
        "best": summary_of(run_dir)["best"],
    }


def test_other_test_images_change_no_choice(toml: Path) -> None:
    found = []
    for data in ("toys:images", "toys:images_with_another_test"):
        toml.write_text(SPACE.replace("toys:images", data))
        with without_ray():
            code, run_dir = searched(toml, data.removeprefix("toys:"), max_concurrent=1)
        assert code == 0
        found.append((chosen(run_dir), pd.read_csv(run_dir / "pareto.csv")["test_error"]))
    (ours, errors), (others, other_errors) = found
    assert ours == others
    assert (errors != other_errors).all()  # the test images did differ


def test_a_search(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} - {".lock"} == {
        *("run.json", "space.toml", "study.db", "results", "rounds", "points.csv", "trials.csv", "pareto.csv"),
        *("summary.json", "confs", "best.conf", "checkpoints", "pareto.png", "report.html", "test_results.json"),
    }
    table, summary = pd.read_csv(finished / "trials.csv"), summary_of(finished)
    assert list(table["trial"]) == list(range(8))
    assert summary["trials"] == {"completed": 8, "stopped": 0, "failed": 0, "infeasible": 0}
    assert (table["kind"] == "refine").sum() == 2
    assert list(table.loc[0, ["ratio/2", "ratio/4"]]) == [0.5, 0.5]  # the initial point
    for member in summary["front"]:
        _, mask = checkpoint.restore(checkpoint.read(finished / member["checkpoint"]), "x")
        assert masks.compression(mask) == member["compression"]
    study = optuna.load_study(study_name="tune_prune", storage=f"sqlite:///{finished / 'study.db'}")
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}


def test_only_wanted_rounds_stay(toml: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_store, "MIN_KEPT", 0)
    _, finished = searched(toml)
    known = [records.read(path) for path in (finished / "results").iterdir()]
    written = {point.checkpoint for record in known for point in record.points if point.checkpoint}
    left = {f"rounds/{path.name}" for path in (finished / "rounds").iterdir()}
    assert left < written


def test_the_same_seed_finds_the_same(toml: Path, finished: Path, trials: Trials) -> None:
    assert points(searched(toml, "again")[1]).equals(points(finished))
    assert not points(searched(toml, "other", seed=1)[1]).equals(points(finished))


def test_a_task_that_is_wrong_leaves_nothing_behind(toml: Path, trials: Trials) -> None:
    toml.write_text(SPACE.replace("toys:images", "toys:mlp"))
    assert "must return (train, validation, test)" in fault(lambda: searched(toml))
    assert list(toml.parent.iterdir()) == [toml]


def test_certificates_without_unseen_images_are_refused(toml: Path, trials: Trials) -> None:
    toml.write_text(SPACE.replace("toys:images", "toys:seen_images"))
    said = fault(lambda: searched(toml, certify=0.95))
    assert said == "--certify needs unseen samples, and the test split is the validation split; give another one"
    assert list(toml.parent.iterdir()) == [toml]
    assert searched(toml)[0] == 0


# Going on


def test_a_finished_run_runs_nothing(finished: Path, trials: Trials) -> None:
    before, summary = results(finished), summary_of(finished)
    (finished / "report.html").unlink()
    assert (resumed(finished), trials.started) == (0, 0)
    assert results(finished) == before
    assert (finished / "report.html").is_file()
    assert summary_of(finished)["front"] == summary["front"]


def test_a_larger_budget_runs_the_rest(finished: Path, trials: Trials) -> None:
    before = results(finished)
    assert (resumed(finished, budget=10), trials.started) == (0, 2)
    after = results(finished)
    assert {name: after[name] for name in before} == before
    assert summary_of(finished)["trials"]["completed"] == 10


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("done", [1, 5])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    toml: Path, finished: Path, trials: Trials, number: signal.Signals, code: int, done: int
) -> None:
    trials.after = lambda count: os.kill(os.getpid(), number) if count == done else None
    assert searched(toml)[0] == code
    run_dir = toml.parent / "run"
    summary, before = summary_of(run_dir), results(run_dir)
    assert summary["trials"]["completed"] == done
    assert summary["dense"]["test_error"] is None  # the front is not the final one
    trials.after = lambda count: None
    assert resumed(run_dir) == 0
    assert {name: results(run_dir)[name] for name in before} == before
    assert points(run_dir).equals(points(finished))
    assert summary_of(run_dir)["front"] == summary_of(finished)["front"]


@pytest.mark.parametrize("stage", ["check_surroundings", "prepare", "make_trials"])
def test_an_interruption_before_the_first_trial_ends_at_once(
    toml: Path, finished: Path, trials: Trials, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    run_dir = toml.parent / "run"
    with monkeypatch.context() as patch:
        patch.setattr(search, stage, interrupted)
        assert searched(toml)[0] == 143
    assert run_dir.exists() == (stage == "make_trials")
    if run_dir.exists():
        assert resumed(run_dir) == 0
        assert points(run_dir).equals(points(finished))


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(toml: Path, finished: Path, trials: Trials) -> None:
    def killed(count: int) -> None:
        if count == 5:
            raise SystemExit

    trials.after = killed
    with pytest.raises(SystemExit):
        searched(toml)
    run_dir = toml.parent / "run"
    assert not (run_dir / "summary.json").exists()
    trials.after = lambda count: None
    assert resumed(run_dir) == 0
    assert points(run_dir).equals(points(finished))


def test_a_trial_that_is_interrupted_again_and_again_goes_on(
    toml: Path, finished: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(worker_data: WorkerData, searcher: StudySearcher, *_: object) -> None:
        assert not isinstance(searcher.suggest("ray"), str)
        os.kill(os.getpid(), signal.SIGINT)  # before the trial has measured anything

    with monkeypatch.context() as patch:
        patch.setattr(search, "run_trials", interrupt)
        assert searched(toml)[0] == 130
        for _ in range(MAX_STARTS):
            assert resumed(toml.parent / "run") == 130
    assert resumed(toml.parent / "run") == 0
    assert points(toml.parent / "run").equals(points(finished))


def test_a_round_that_no_process_lived_to_judge_is_judged_by_the_next(
    toml: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text(SPACE.replace("rounds = 2\nsteps", "rounds = 3\nsteps", 1).replace("share = 0.25", "share = 0"))
    assert searched(toml, "whole", budget=12)[0] == 0
    whole = toml.parent / "whole"
    assert "stopped" in set(pd.read_csv(whole / "trials.csv")["state"])
    killed, judge = set[int](), EarlyStopping.should_stop

    def killed_once(self: EarlyStopping, number: int) -> bool:
        if number not in killed:
            killed.add(number)
            raise SystemExit
        return judge(self, number)

    monkeypatch.setattr(EarlyStopping, "should_stop", killed_once)
    with pytest.raises(SystemExit):
        searched(toml, budget=12)
    for _ in range(11):
        with pytest.raises(SystemExit):
            resumed(toml.parent / "run")
    assert resumed(toml.parent / "run") == 0
    assert len(killed) == 12
    assert points(toml.parent / "run").equals(points(whole))
    assert trials_of(toml.parent / "run").equals(trials_of(whole))


def test_initial_points_are_tried_once_also_by_a_run_that_was_interrupted(toml: Path, trials: Trials) -> None:
    toml.write_text(SPACE + "[[initial.point]]\nratio = 0.3\n[[initial.point]]\nratio = 0.4\n")
    trials.after = lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None
    assert searched(toml)[0] == 130
    trials.after = lambda count: None
    assert resumed(toml.parent / "run") == 0
    table = pd.read_csv(toml.parent / "run" / "trials.csv")
    first = table["ratio/4"][table["kind"] == "explore"]
    assert list(first[:3]) == [0.5, 0.3, 0.4]
    assert not first[3:].isin([0.3, 0.4]).any()


def test_a_time_that_holds_no_round(toml: Path, trials: Trials) -> None:
    said = fault(lambda: searched(toml, time_budget=0.5))
    assert re.fullmatch(
        r"--time-budget 0.5s is too short: a round takes 0.\d s here, and all that comes before and after it \d+ s; "
        r"give at least \d+s",
        said,
    )
    assert not (toml.parent / "run").exists()


@pytest.fixture
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, which does not start here, takes no time, nor do files."""
    for module, name in ((profiling, "RAY_START"), (profiling, "FILES"), (progress, "FILES")):
        monkeypatch.setattr(module, name, 0.0)


@pytest.mark.usefixtures("no_start")
def test_time_alone_ends_it(toml: Path, trials: Trials) -> None:
    assert searched(toml, time_budget=scaled(4.0))[0] == 0
    run_dir = toml.parent / "run"
    summary = summary_of(run_dir)
    assert summary["budget"] is None
    assert summary["trials"]["completed"] + summary["trials"]["stopped"] == trials.started > 0
    assert resumed(run_dir, budget=trials.started + 2) == 0
    assert summary_of(run_dir)["trials"]["completed"] >= summary["trials"]["completed"]
    assert len(results(run_dir)) == trials.started


@pytest.mark.usefixtures("no_start")
def test_time_is_up_before_the_budget(toml: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    trials.after = lambda count: monkeypatch.setattr(progress, "FILES", 1e9) if count == 3 else None
    searched(toml, budget=8, time_budget=30.0)
    assert trials.started == 4  # the third is taken up, and its time is found to be up, when the fourth begins
    assert resumed(toml.parent / "run") == 0
    assert summary_of(toml.parent / "run")["trials"]["completed"] == 8


def test_a_search_ends_where_more_is_not_worth_it(toml: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecasts are made from the third trial on, and expect at least 0.38 % of hypervolume."""
    said = list[str]()
    monkeypatch.setattr(SearchConsole, "say", lambda _, text: said.append(text))
    monkeypatch.setattr(forecast, "MIN_TRIALS", 3)
    assert searched(toml, "never", stop_when=0.003)[0] == 0
    assert trials.started == 8
    assert not any("--stop-when" in text for text in said)
    assert searched(toml, stop_when=0.9)[0] == 0
    ended = "--stop-when: less than 90 % more hypervolume is expected; no further trials"
    assert [text for text in said if "--stop-when" in text] == [ended]
    run, summary = toml.parent / "run", summary_of(toml.parent / "run")
    assert trials.started == 8 + summary["trials"]["completed"] == 8 + 3
    assert 0 < summary["forecast"]["gain"]["expected"] < 0.9
    assert summary["forecast"]["factor"]["low"] <= summary["forecast"]["factor"]["high"]
    assert "after as much training again" in (run / "report.html").read_text()
    assert resumed(run) == 0  # and is not begun again
    assert trials.started == 8 + 3
    assert resumed(run, stop_when=0.003) == 0
    assert summary_of(run)["trials"]["completed"] == 8


@pytest.mark.usefixtures("no_start")
def test_a_time_in_which_nothing_is_forecast(toml: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "MIN_TRIALS", 10**9)
    said = fault(lambda: searched(toml, time_budget=60.0, budget=None, stop_when=0.01))
    assert said.startswith("--stop-when sees nothing in a --time-budget of 60s: nothing is forecast before 1000000000")
    assert not (toml.parent / "run").exists()


def test_nothing_to_search(toml: Path, trials: Trials) -> None:
    fixed = SPACE.replace('["mag", "taylor1"]', '"mag"').replace("{low = 0.1, high = 0.95}", "0.5")
    toml.write_text(fixed.replace("{low = 0.0, high = 0.5}", "0.5"))
    said = fault(lambda: searched(toml))
    assert said.startswith(
        f"{toml}: every ratio and every other parameter is fixed, so that there is nothing to search"
    )
    assert not (toml.parent / "run").exists()


def test_fixed_ratios_are_searched_over_the_rest(toml: Path, trials: Trials) -> None:
    fixed = SPACE.replace("{low = 0.1, high = 0.95}", "0.5").replace("{low = 0.0, high = 0.5}", "0.5")
    toml.write_text(fixed.replace("lr = 0.05\n[space.ratio]", "lr = {low = 0.01, high = 0.1}\n[space.ratio]"))
    assert searched(toml)[0] in (0, 3)
    table = pd.read_csv(toml.parent / "run" / "trials.csv")
    assert set(table["ratio/2"]) == {0.5}
    assert table["lr"].nunique() > 4


@contextmanager
def here(
    task: Task, resources: Resources, known: CachedStatistics, log: Path, stopped: Callable[[], bool]
) -> Iterator[Any]:
    """What Ray's workers do, done here."""

    def each(work: Any, jobs: Any) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            if not stopped():
                yield job, work(task, job, torch.device("cpu"), known)

    yield each


def test_the_front_confirmed_and_refitted(finished: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finalize, "worker_pool", here)
    before = summary_of(finished)["front"]
    assert resumed(finished, confirm=3, refit=True) == 0
    assert trials.started == 0
    front = summary_of(finished)["front"]
    assert [member["val_error"] for member in front] == [member["val_error"] for member in before]
    assert all(member["refit"] and member["confirm_mean"] is not None for member in front)
    assert len(list((finished / "confirm").iterdir())) == 3 * len(front)
    for member in front:
        model, mask = checkpoint.restore(checkpoint.read(finished / member["checkpoint"]), "x")
        assert masks.compression(mask) == member["compression"]
        assert evaluate(model, images().load_test()).metric == member["test_error"]
    times = {path: path.stat().st_mtime_ns for kind in ("confirm", "refits") for path in (finished / kind).iterdir()}
    for given in ({"confirm": 3, "refit": True}, {}, {"confirm": 2}):  # what was done once stays
        assert resumed(finished, **given) == 0
        assert {path: path.stat().st_mtime_ns for path in times} == times  # nothing is measured twice
        assert summary_of(finished)["front"] == front
    assert test_record.read(finished).reads == 2  # for the front, and for its refitted weights


def test_an_interruption_while_the_front_is_confirmed(
    finished: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finalize, "worker_pool", here)

    def interrupted(*given: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return confirm.confirm_front(*given, **more)

    before = summary_of(finished)
    monkeypatch.setattr(finalize, "confirm_front", interrupted)
    assert resumed(finished, confirm=2, refit=True) == 130
    assert not (finished / "confirm").exists()
    after = summary_of(finished)
    assert (after["front"], after["dense"]) == (before["front"], before["dense"])
    assert all(member["test_error"] is not None for member in after["front"])
    assert resumed(finished) == 0
    assert test_record.read(finished).reads == 1


def test_whatever_fails_while_the_front_is_confirmed_files_are_written_first(
    toml: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise UserError("the workers do not start")

    monkeypatch.setattr(finalize, "worker_pool", broken)
    with pytest.raises(RuntimeError, match="the workers do not start"):
        searched(toml, budget=3, confirm=2)
    run_dir = toml.parent / "run"
    assert summary_of(run_dir)["trials"]["completed"] == 3
    assert all((run_dir / name).exists() for name in ("points.csv", "trials.csv", "pareto.csv", "confs", "best.conf"))


def test_a_search_that_cannot_go_on_writes_what_there_is(
    toml: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = TrialStore.start

    def gone(self: TrialStore, *given: Any) -> int:
        if len(self.numbers) == 3:
            raise OSError("server closed the connection")
        return start(self, *given)

    monkeypatch.setattr(TrialStore, "start", gone)
    with pytest.raises(OSError, match="server closed the connection"):
        searched(toml)
    summary = summary_of(toml.parent / "run")
    assert summary["trials"]["completed"] == 3
    assert summary["dense"]["test_error"] is None  # the front is not the final one
    monkeypatch.undo()
    with without_ray():
        assert resumed(toml.parent / "run") == 0
    assert summary_of(toml.parent / "run")["trials"]["completed"] == 8


def test_another_space_is_refused(finished: Path, trials: Trials) -> None:
    (finished / "space.toml").write_text(SPACE.replace("0.95", "0.96"))
    before = results(finished)
    assert "changed since it was begun: parameters of the space; undo" in fault(lambda: resumed(finished))
    assert (results(finished), trials.started) == (before, 0)


def test_a_held_directory(finished: Path, trials: Trials) -> None:
    with FileLock(finished / ".lock"), pytest.raises(HeldError, match="another process works there"):
        resumed(finished)
    assert resumed(finished) == 0


@pytest.mark.parametrize("shared", [False, True])
def test_two_new_searches_in_one_directory(toml: Path, trials: Trials, shared: bool) -> None:
    given: dict[str, Any] = {"storage": f"sqlite:///{toml.parent / 'shared.db'}"} if shared else {}
    run_dir = toml.parent / "run"
    settings, space, text = run_files.start_run(str(toml), {"budget": 2, "seed": 1, "force": True} | given)
    assert searched(toml, budget=1, **given)[0] in (0, 3)  # while the other one, that began as well, still prepares
    before = {name: (run_dir / name).read_bytes() for name in ("run.json", "space.toml", "summary.json")}
    with pytest.raises(HeldError, match="another process has begun a run there meanwhile"):
        search.search(settings, space, run_dir, quiet(), text)
    assert {name: (run_dir / name).read_bytes() for name in before} == before
    assert trials.started == 1


# Nothing is feasible


def test_nothing_keeps_the_tradeoff(toml: Path, trials: Trials) -> None:
    model, weights = mlp(), toml.parent / "dense.safetensors"
    fit(model, images().train, Recipe(steps=150, lr=0.1), seeded(0))
    checkpoint.write(weights, "toys:mlp", model, {})
    hard = SPACE.replace("low = 0.1", "low = 0.94").replace("final_steps = 10", "").replace("share = 0.25", "share = 0")
    toml.write_text(hard.replace("steps = 2\n", "").replace("[task]", f"[task]\nweights = '{weights}'"))
    code, run_dir = searched(toml, acc_tradeoff=0.0)
    summary = summary_of(run_dir)
    assert (code, trials.started, summary["front"]) == (3, 8, [])
    assert summary["dense"]["val_error"] == evaluate(model, images().validation).metric
    nearest = min(point["val_error"] for _, point in pd.read_csv(run_dir / "points.csv").iterrows())
    assert summary["smallest_tradeoff"] == pytest.approx(nearest - summary["dense"]["val_error"])
    assert (run_dir / "closest.conf").is_file()
    assert not (run_dir / "best.conf").exists()


def test_failed_trials_are_told(toml: Path, trials: Trials) -> None:
    toml.write_text(SPACE.replace("lr = 0.05\n[space.ratio]", "lr = 1e30\n[space.ratio]"))
    with pytest.raises(RuntimeError, match="all 8 trials failed; the last: DivergedError: the training loss became"):
        searched(toml, max_failures=1.0)  # and not an exit code of 3, as if something had been measured
    run_dir = toml.parent / "run"
    assert summary_of(run_dir)["trials"]["failed"] == 8
    assert all("DivergedError" in reason for reason in pd.read_csv(run_dir / "trials.csv")["reason"])


def test_too_many_failures_end_a_search_with_what_there_is(toml: Path, trials: Trials) -> None:
    toml.write_text(SPACE.replace("lr = 0.05\n[space.ratio]", "lr = 1e30\n[space.ratio]"))
    said = "6 of 6 trials failed, more than --max-failures 0.5; the last: DivergedError: the training loss became nan"
    with pytest.raises(RuntimeError, match=said):
        searched(toml)
    assert summary_of(toml.parent / "run")["trials"]["failed"] == 6
    with pytest.raises(RuntimeError, match="all 8 trials failed"):
        resumed(toml.parent / "run", max_failures=1.0)
    assert summary_of(toml.parent / "run")["trials"]["failed"] == 8


def test_every_saved_model_names_its_data(finished: Path) -> None:
    paths = sorted((finished / "checkpoints").iterdir())
    assert paths
    assert {checkpoint.read(path).notes["data"] for path in paths} == {"toys:images"}


# What changed since a search was begun


def changed_images(part: str) -> Data:
    """The toys' images with another last pixel in one split."""
    data = images()
    splits = {"training": data.train, "validation": data.validation, "test": data.load_test()}
    splits[part].inputs[-1, -1, -1, -1] += 1
    return Data(splits["training"], splits["validation"], lambda: splits["test"])


def changed_mlp() -> nn.Module:
    """The toy with another activation, and the same weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.LeakyReLU(1e-9), nn.Linear(16, 4))


@pytest.mark.parametrize("part", ["training", "validation", "test"])
def test_other_images_are_refused(finished: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    before = results(finished)
    monkeypatch.setattr(toys, "images", lambda: changed_images(part))
    said = fault(lambda: resumed(finished, budget=20))
    assert said.startswith(f"{finished}: changed since it was begun: ")
    assert f"{part} inputs; undo that" in said
    assert results(finished) == before


def test_another_model_is_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "mlp", changed_mlp)
    said = fault(lambda: resumed(finished, budget=20))
    assert said == f"{finished}: changed since it was begun: model code; undo that, or use a new --run-dir"


def test_another_code_of_a_pruner_is_refused(toml: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(toml.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one second may have one cached form
    score, module = "def score(weight):\n    return weight.abs()\n", toml.parent / "pruner_of_a_user.py"
    module.write_text(score)
    toml.write_text(SPACE.replace('"taylor1"', '"pruner_of_a_user:score"'))
    searched(toml, budget=2)
    module.write_text(score.replace("return ", "return -"))
    sys.modules.pop("pruner_of_a_user")
    said = fault(lambda: resumed(toml.parent / "run", budget=3))
    assert "changed since it was begun: code of pruner_of_a_user:score; undo that" in said
    sys.modules.pop("pruner_of_a_user")


def test_other_weights_are_refused(toml: Path, trials: Trials) -> None:
    weights = toml.parent / "dense.safetensors"
    toml.write_text(SPACE.replace("[task]", f"[task]\nweights = '{weights}'"))
    model = mlp()
    fit(model, images().train, Recipe(steps=150, lr=0.1), seeded(0))
    checkpoint.write(weights, "toys:mlp", model, {})
    searched(toml, budget=3)
    with torch.no_grad():
        model[1].weight[0, 0] += 1e-6  # too little to change the error
    checkpoint.write(weights, "toys:mlp", model, {})
    said = fault(lambda: resumed(toml.parent / "run", budget=5))
    assert said.endswith("changed since it was begun: weights; undo that, or use a new --run-dir")


# Pieces


def test_the_fingerprint_tells_searches_apart(toml: Path) -> None:
    settings, space, _ = run_files.start_run(str(toml), {"force": True})
    prepared = preparation.prepare(settings, space, print)

    def of(space: Space = space, **changed: Any) -> tuple[object, ...]:
        info = replace(prepared.info, **changed)
        return tuple(preparation.fingerprint_search(space, info, prepared.contents).items())

    assert of() == of(budget=99, concurrency=7, command="x", device="cuda")
    others = [
        of(seed=9),
        of(sampler="random"),
        of(acc_tradeoff=1.0),
        of(dense_metric=1.0),
        of(replace(space, refine=replace(space.refine, share=0.1))),
        of(space.with_pruners(["mag"])),
        of(replace(space, ratios=[("2", 0.5)])),
    ]
    assert len({of(), *others}) == 8


def test_progress(tmp_path: Path, toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, space, _ = run_files.start_run(str(toml), {"force": True})
    info = preparation.prepare(settings, space, print).info
    now = 100.0
    monkeypatch.setattr(budget.time, "monotonic", lambda: now)
    shown: list[Any] = []
    said: list[str] = []
    screen = quiet()
    monkeypatch.setattr(screen, "show_status", shown.append)
    monkeypatch.setattr(screen, "say", said.append)
    spent = Budget(8, began=90.0)
    parameters = space.parameters_for(info.ratio_shapes)
    shower = progress.Progress(info, screen, spent, test=2.0, run_dir=tmp_path, parameters=parameters)

    class Ended:
        running = frozenset({2})
        estimates = Estimates(info.limits, 0)
        refines: int | None = None

        @classmethod
        def worker_config(cls, number: int) -> TrialConfig:
            params = TrialParams({"2": 0.5, "4": 0.25}, training={"rounds": 3})
            return TrialConfig(number, 0, params, cls.refines, is_initial=not cls.refines)

    shower.update(Ended)  # type: ignore[arg-type]
    assert (shown[-1].done, shown[-1].seconds, shown[-1].seconds_left, shown[-1].best_factor) == (0, 10, None, None)
    Ended.estimates.add(ended(0, (0.5, 60.0), limit=75))
    Ended.estimates.add(ended(1, (0.9, 70.0), (0.95, 80.0), limit=75))
    now = 120.0
    shower.update(Ended)  # type: ignore[arg-type]
    last = shown[-1]
    assert (last.done, len(last.running), last.failed, last.best) == (2, 1, 0, "70.00 %")
    assert said == [
        "new best: 2.0x at 60.00 % (trial 0, round 1, 0:30)",
        "new best: 10.0x at 70.00 % (trial 1, round 1, 0:30)",
    ]
    assert (last.phase, last.running[0].round, last.running[0].latest) == (progress.INITIAL, 1, "")
    assert last.running[0].params == {"ratio/2": 0.5, "ratio/4": 0.25}
    records.write(tmp_path, ended(2, (0.5, 60.0), (0.75, 65.0), state="running"))
    shower.update(Ended)  # type: ignore[arg-type]
    [running] = shown[-1].running
    assert (running.round, running.rounds, running.latest) == (3, 3, "4.0x at 65.00 %")
    Ended.running, Ended.refines = frozenset({2, 3}), 0
    shower.update(Ended)  # type: ignore[arg-type]
    assert (shown[-1].phase, shown[-1].running[1].refines) == (progress.REFINEMENT, 0)
    assert len(said) == 2
    assert last.best_factor == pytest.approx(10)
    assert (last.seconds, last.seconds_left) == (30, 60)  # two in 20 s, six to go
    assert last.share == 0.25
    assert spent.reserve == progress.FILES + 3 * 2.0  # two members are tested at the end, and the dense model
    assert 0 < last.hypervolume < 1


def test_a_best_that_its_estimate_does_not_uphold_is_taken_back(
    tmp_path: Path, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, space, _ = run_files.start_run(str(toml), {"force": True})
    info = preparation.prepare(settings, space, print).info
    said: list[str] = []
    screen = quiet()
    monkeypatch.setattr(screen, "say", said.append)
    shower = progress.Progress(info, screen, Budget(8), test=2.0, run_dir=tmp_path)

    class Ended:
        running = frozenset[int]()
        started = 2
        estimates = Estimates(info.limits, 10)

    shower.update(Ended)  # type: ignore[arg-type]
    limit = info.limits.max_cost
    inside, lucky = ended(0, (0.5, limit - 20), limit=limit), ended(1, (0.9, limit - 0.1), limit=limit)
    for record in (inside, lucky):
        Ended.estimates.add(record)
    shower.update(Ended)  # type: ignore[arg-type]
    outside = replace(lucky, points=[replace(lucky.last, estimate=limit + 1, feasible=False)])
    monkeypatch.setattr(Ended.estimates, "records", {0: inside, 1: outside})
    monkeypatch.setattr(Ended.estimates, "fits", 1)
    shower.update(Ended)  # type: ignore[arg-type]
    shower.update(Ended)  # type: ignore[arg-type]
    metric = info.metric
    assert [line.partition(" (")[0] for line in said[:2]] == [
        f"new best: 2.0x at {metric.format(limit - 20)}",
        f"new best: 10.0x at {metric.format(limit - 0.1)}",
    ]
    assert said[2:] == [
        f"by its estimate, 10.0x is outside the limit; best now: 2.0x at {metric.format(limit - 20)}",
    ]


def test_a_file_gets_plain_lines_that_name_every_phase(
    trials: Trials, toml: Path, monkeypatch: pytest.MonkeyPatch, small_statistics: None
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    said = io.StringIO()
    settings, space, text = run_files.start_run(str(toml), {"force": True, "budget": 12})
    run_dir = toml.parent / "run"
    shown = SearchConsole(Console(file=said, width=80))
    assert search.search(settings, space, run_dir, shown, text) == 0
    lines = said.getvalue().splitlines()
    assert "".join(lines).isprintable()
    members = len(summary_of(run_dir)["front"])
    phases = [
        "loading model and data, and measuring the dense model", "measuring layers: ", "initial trials: ",
        "search: ", "refinement: ", f"testing the front: {members + 1}", "writing checkpoints, picture and report",
    ]  # fmt: skip
    firsts = [next(at for at, line in enumerate(lines) if line.startswith(phase)) for phase in phases]
    assert len(set(firsts)) == len(phases)
    assert firsts[:2] + firsts[-2:] == sorted(firsts[:2] + firsts[-2:])
    bests = [float(line.split()[2].rstrip("x")) for line in lines if line.startswith("new best: ")]
    assert bests == sorted(set(bests))
    assert bests[-1] == pytest.approx(summary_of(run_dir)["front"][-1]["factor"], abs=0.1)
    assert lines[lines.index("what to type next:") + 1].startswith("  ")


def test_costs_as_limits_and_objectives(trials: Trials, toml: Path) -> None:
    settings = "acc_tradeoff = 5\nat_most = {macs = 0.4, bytes = 3000}\nobjectives = ['macs']"
    toml.write_text(SPACE.replace("acc_tradeoff = 5", settings))
    code, run_dir = searched(toml)
    assert code == 0
    table, summary = points(run_dir), summary_of(run_dir)
    kept = (table["macs"] <= 0.4) & (table["bytes"] <= 3000)
    assert 0 < kept.sum() < len(table)
    assert (table["feasible"] == (kept & (table["val_error"] <= summary["limit"]))).all()
    assert all(member["macs"] <= 0.4 and member["bytes"] <= 3000 for member in summary["front"])
    study = optuna.load_study(study_name="tune_prune", storage=f"sqlite:///{run_dir / 'study.db'}")
    assert study.metric_names == ["log10_factor", "val_error", "macs"]
    assert resumed(run_dir, budget=9) == 0


def test_a_limit_that_nothing_keeps(trials: Trials, toml: Path) -> None:
    toml.write_text(SPACE.replace("acc_tradeoff = 5", "acc_tradeoff = 5\nat_most = {macs = 0.0001}"))
    settings, space, text = run_files.start_run(str(toml), {"budget": 2, "force": True})
    said = io.StringIO()
    assert search.search(settings, space, toml.parent / "run", SearchConsole(Console(file=said, width=200)), text) == 3
    assert "no point keeps macs of 0.0001 at most; the nearest has macs of 0." in said.getvalue()
    assert summary_of(toml.parent / "run")["smallest_tradeoff"] is None


RATIOS = '"2" = {low = 0.1, high = 0.95}\n"4" = {low = 0.0, high = 0.5}'
KINDS = {
    "each layer by itself": SPACE,
    "global": SPACE.replace("[space]", '[space]\nmode = "global"').replace(RATIOS, '"*" = {low = 0.1, high = 0.9}'),
    "erk": SPACE.replace(RATIOS, '"*" = {low = 0.1, high = 0.9, group = "erk"}'),
    "sensitivity": SPACE.replace(RATIOS, '"*" = {low = 0.1, high = 0.9, group = "sensitivity"}'),
    "channels": SPACE.replace("toys:mlp", "toys:Conv")
    .replace("[space]", '[space]\ngranularity = "channel"')
    .replace(RATIOS, '"*" = {low = 0.1, high = 0.8}'),
    "of several granularities": SPACE.replace("[space]", '[space]\ngranularity = ["weight", "filter", "2:4"]'),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_conf_of_the_front_replays_to_what_it_states(trials: Trials, toml: Path, kind: str) -> None:
    toml.write_text(KINDS[kind].replace("ratio = 0.5", "ratio = 0.5\nrounds = 2"))
    code, run_dir = searched(toml)
    assert code == 0
    assert resumed(run_dir, budget=9) == 0  # what the study was begun with is what it goes on with
    assert trials.started == 9
    confs = sorted((run_dir / "confs").glob("*.conf"))
    warm_started = 0
    for path in confs:
        found = conf.read(path)
        compared = replay(found, torch.device("cpu"), path)
        assert [each.line() for each in compared if each.differs] == []
        warm_started += "parent" in found.notes
    assert warm_started, "no refinement on the front, so its replay was not tried"


def test_a_search_that_removes_every_weight(trials: Trials, toml: Path) -> None:
    toml.write_text(re.sub(r'"2" = .*\n"4" = .*', '"*" = {low = 0.99, high = 0.99999}', SPACE))
    code, run_dir = searched(toml, acc_tradeoff=99.0)
    assert code == 0
    assert summary_of(run_dir)["front"][-1]["compression"] == 1


def test_a_search_of_a_model_in_bfloat16(trials: Trials, toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(toml.parent / "cache"))
    text = SPACE.replace("toys:mlp", "toys:Halved").replace('"2"', '"net.1"').replace('"4"', '"net.3"')
    toml.write_text(text.replace('"taylor1"', '"taylor12", "l1", "emp"'))
    code, run_dir = searched(toml, acc_tradeoff=99.0)
    assert code == 0
    assert summary_of(run_dir)["trials"]["completed"] == 8
    path = run_dir / summary_of(run_dir)["front"][-1]["checkpoint"]
    assert all(value.dtype == torch.bfloat16 for value in checkpoint.read(path).weights.values())


def test_what_compression_does_not_count_is_said(trials: Trials, toml: Path) -> None:
    text = re.sub(r'"2" = .*\n"4" = .*', '"head" = {low = 0.1, high = 0.9}', SPACE).replace("toys:mlp", "toys:Mixed")
    toml.write_text(text.replace("budget = 8", "budget = 2"))
    settings, space, text = run_files.start_run(str(toml), {"acc_tradeoff": 99.0, "force": True})
    shown = io.StringIO()
    search.search(settings, space, toml.parent / "run", SearchConsole(Console(file=shown, width=200)), text)
    assert "warning: compression counts 64 of the model's 1,152 weights (5.556 %)" in shown.getvalue()
    coverage = summary_of(toml.parent / "run")["coverage"]
    assert (coverage["counted"], coverage["total"], coverage["share"]) == (64, 1152, 64 / 1152)
