"""Searches with metrics beside the one that they judge by, and with limits on them."""

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pandas as pd
import pytest
from rich.console import Console
from searches import SPACE, Trials, resumed, without_ray
from toys import fault

from tune_prune.hpo import run_files
from tune_prune.pruning import checkpoint, gates, loss_change
from tune_prune.results import conf
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.training.resources import pick_device
from tune_prune.workflows import preparation, search
from tune_prune.workflows.confirm import read_confirmations
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.replay import replay

TASK = """
model = "tasks_of_users:trained_regressor"
data = "tasks_of_users:rows"
loss = "tasks_of_users:mean_squared"
metric = "tasks_of_users:rmse"
"""
OWN = (
    SPACE.replace('\nmodel = "toys:mlp"\ndata = "toys:images"\n', TASK + "further_metrics = [{further}]\n")
    .replace('"2" =', '"net.0" =')
    .replace('"4" =', '"net.2" =')
    .replace("acc_tradeoff = 5\n", "acc_tradeoff = 0.3\n{goal}\n")
    .replace("steps = 2\n", "steps = 2\nsample = 64\n")
)


class Run(NamedTuple):
    """A search that has ended: its exit code, its directory, and what it said."""

    code: int
    path: Path
    said: str

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return found


def searched(folder: Path, further: str, goal: str = "", **given: Any) -> Run:
    folder.mkdir(exist_ok=True)
    toml = folder / "own.toml"
    names = ", ".join(f'"tasks_of_users:{name}"' for name in further.split())
    text = OWN.replace("{further}", names).replace("{goal}", goal)
    toml.write_text(text if names else text.replace("further_metrics = []\n", ""))
    settings, space, written = run_files.start_run(str(toml), {"force": True, "budget": 8} | given)
    said = io.StringIO()
    code = search.search(settings, space, folder / "run", SearchConsole(Console(file=said, width=300)), written)
    return Run(code, folder / "run", said.getvalue())


@pytest.fixture(scope="module", autouse=True)
def small() -> Any:
    with without_ray() as trials, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "STEPS", 30)
        patch.setattr(loss_change, "IMAGES", 32)
        yield trials


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search by rmse, where the outputs have to keep a spread, and be at most so far off."""
    goal = "at_most = {macs = 0.9, val_largest = 2.0}\nat_least = {val_spread = 0.61}"
    return searched(tmp_path_factory.mktemp("limited"), "spread largest", goal)


def points(run: Run) -> pd.DataFrame:
    return pd.read_csv(run.path / "points.csv")


def test_every_round_is_measured_and_keeps_or_breaks_every_limit(limited: Run) -> None:
    found = points(limited)
    kept = (found.macs <= 0.9) & (found.val_largest <= 2.0) & (found.val_spread >= 0.61)
    within = found.val_rmse <= limited.summary["limit"]
    assert (found.feasible == (kept & within)).all()
    assert (kept & within).any()
    assert (within & ~(found.val_spread >= 0.61)).any()  # so that the limit decides something
    for row in limited.summary["front"]:
        assert row["val_spread"] >= 0.61
        assert row["val_largest"] <= 2.0


def test_columns_of_every_file(limited: Run) -> None:
    summary = limited.summary
    names = ["val_spread", "val_largest"]
    assert set(names) <= set(points(limited).columns)
    trials = pd.read_csv(limited.path / "trials.csv")
    last = points(limited).groupby("trial").last()
    assert trials.set_index("trial").val_spread.dropna().equals(last.val_spread)
    pareto = pd.read_csv(limited.path / "pareto.csv")
    for row, member in zip(summary["front"], pareto.to_dict("records"), strict=True):
        for name in [*names, "test_spread", "test_largest"]:
            assert row[name] == member[name]
    assert summary["further_metrics"] == ["spread", "largest"]
    assert summary["at_least"] == {"val_spread": 0.61}
    assert summary["at_most"] == {"macs": 0.9, "val_largest": 2.0}
    assert {*names, "test_spread", "test_largest"} < summary["dense"].keys()


def test_what_stands_there_is_what_the_saved_models_measure(limited: Run) -> None:
    settings = run_files.read_space(limited.path / "space.toml").settings
    data = load_data("tasks_of_users:rows", settings=settings)
    for row in limited.summary["front"]:
        model, _ = checkpoint.restore(checkpoint.read(limited.path / row["checkpoint"]), "it")
        found = measure_further(model, data.validation, "val") | measure_further(model, data.load_test(), "test")
        assert found == {name: row[name] for name in found}
        assert len(found) == 4


def test_the_study_has_a_constraint_for_each_limit(limited: Run) -> None:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{limited.path}/study.db")
    last = points(limited).groupby("trial").last()
    done = [trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    assert done
    for trial in done:
        row = last.loc[trial.number]
        assert dict(trial.constraints) == {
            "val_rmse - limit": row.val_rmse - limited.summary["limit"],
            "macs / limit - 1": row.macs / 0.9 - 1,
            "val_largest / limit - 1": row.val_largest / 2.0 - 1,
            "1 - val_spread / limit": pytest.approx(1 - row.val_spread / 0.61),
        }


def test_it_is_said_what_the_dense_model_has_and_what_the_limits_are(limited: Run) -> None:
    dense = limited.summary["dense"]
    assert f"val_spread {dense['val_spread']:.4g}, val_largest {dense['val_largest']:.4g}; limits: " in limited.said
    assert "val_largest at most 2, val_spread at least 0.61" in limited.said
    page = (limited.path / "report.html").read_text("utf-8")
    assert "<b>dense spread</b>" in page
    assert "macs 0.9 at most, val_largest 2 at most, val_spread 0.61 at least" in page
    assert all(f">{split} spread</th>" in page for split in ("validation", "test"))


def test_a_conf_notes_them_and_its_replay_compares_them(limited: Run) -> None:
    best = conf.read(limited.path / "best.conf")
    row = limited.summary["front"][-1]
    for name in ("val_spread", "val_largest", "test_spread", "test_largest"):
        assert best.notes[name] == row[name]
    compared = replay(best, pick_device("cpu"), limited.path / "best.conf")
    assert {one.name for one in compared} == {
        "compression", "val_rmse", "test_rmse", "val_spread", "test_spread", "val_largest", "test_largest",
    }  # fmt: skip
    assert not [one.name for one in compared if one.differs]


def test_it_ends_again_as_it_ended_and_goes_on(limited: Run, small: Trials) -> None:
    before, started = (limited.path / "pareto.csv").read_bytes(), small.started
    assert resumed(limited.path) == limited.code
    assert small.started == started
    assert (limited.path / "pareto.csv").read_bytes() == before


def test_without_limits_further_metrics_change_nothing_of_a_search(tmp_path: Path) -> None:
    """Not even one that draws random numbers, which training draws as well."""
    plain, beside = searched(tmp_path / "plain", ""), searched(tmp_path / "beside", "drawn spread")
    assert plain.code == beside.code == 0
    ours, theirs = points(beside).drop(columns="seconds"), points(plain).drop(columns="seconds")
    pd.testing.assert_frame_equal(ours.drop(columns=["val_drawn", "val_spread"]), theirs, check_exact=True)
    assert ours.val_drawn.nunique() == 1
    keys = {"further_metrics", "at_least"}
    assert keys <= beside.summary.keys()
    assert not keys & plain.summary.keys()


def test_a_limit_that_nothing_keeps_leaves_what_comes_closest(tmp_path: Path) -> None:
    run = searched(tmp_path, "spread", "at_least = {val_spread = 5}", budget=3)
    summary, found = run.summary, points(run)
    assert (run.code, summary["front"], summary["smallest_tradeoff"]) == (3, [], None)
    assert summary["closest"]["val_spread"] == found.val_spread.max()
    assert "val_spread at least 5 (which the dense model itself does not keep)" in run.said
    nearest = f"the nearest has val_spread of {found.val_spread.max():.4g}"
    assert f"no point keeps val_spread of 5 at least; {nearest}" in run.said
    assert (run.path / "closest.conf").exists()


def test_a_metric_that_is_no_number_keeps_no_limit(tmp_path: Path) -> None:
    run = searched(tmp_path, "no_number", "at_most = {val_no_number = 1}", budget=2)
    assert run.code == 3
    assert run.summary["trials"]["failed"] == 0
    assert not points(run).feasible.any()
    assert resumed(run.path, budget=3) == 3  # its records are read again


def test_limits_of_zero_and_below(tmp_path: Path) -> None:
    run = searched(tmp_path, "closeness", "at_least = {val_closeness = -0.5}\nat_most = {val_closeness = 0}", budget=3)
    found = points(run)
    assert (found.val_closeness == -found.val_rmse).all()
    assert (found.feasible == ((found.val_rmse <= 0.5) & (found.val_rmse <= run.summary["limit"]))).all()


def test_repetitions_have_to_keep_these_limits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = searched(tmp_path, "spread", "at_least = {val_spread = 0.61}", budget=3)
    space = run_files.read_space(run.path / "space.toml")
    info = preparation.prepare(run_files.start_run(str(tmp_path / "own.toml"), {})[0], space, lambda line: None).info
    from tune_prune.hpo.budget import SearchEnd
    from tune_prune.workflows.confirm import list_repetitions
    from tune_prune.workflows.selection import select_front

    front = select_front(run.path, info, SearchEnd.BUDGET)
    by_trial = {record.trial: record for record in front.records}
    for value, holds in ((0.7, True), (0.5, False), (None, False)):
        for member in front.members:
            for job in list_repetitions(member, by_trial, info.seed, 2):
                written = {"seed": job.seed, "compression": job.compression, "val_rmse": 0.1, "val_spread": value}
                (run.path / "confirm").mkdir(exist_ok=True)
                (run.path / job.file).write_text(json.dumps(written))
        found = read_confirmations(run.path, front.members, by_trial, seed=info.seed, limits=info.limits)
        assert found
        assert all(one.metrics == (0.1, 0.1) and one.holds is holds for one in found.values())


# Mistakes, and what goes on


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (
            "at_most = {val_f1 = 1}",
            "goal.at_most.val_f1 names no cost and no further metric; known: macs, bytes, latency, latency_ms, val_",
        ),
        ("at_least = {val_f1 = 1}", "goal.at_least.val_f1 names no further metric; known: val_spread; "),
        ("at_least = {val_rmse = 1}", "goal.at_least.val_rmse names no further metric; known: val_spread; "),
        ("at_least = {macs = 1}", "unknown key 'goal.at_least.macs'; known: val_<further metric>"),
        (
            "at_most = {spread = 1}",
            "unknown key 'goal.at_most.spread'; known: macs, bytes, latency, latency_ms, val_<further metric>",
        ),
        ("at_least = {val_spread = nan}", "goal.at_least.val_spread must be a number"),
        ("at_least = {val_spread = 'a'}", "goal.at_least.val_spread must be a number"),
        ("at_least = 3", "goal.at_least must be a table of costs and metrics, like {val_f1 = 0.8}"),
    ],
)
def test_limits_on_what_is_not_measured_are_refused(tmp_path: Path, goal: str, said: str) -> None:
    found = fault(lambda: searched(tmp_path, "spread", goal))
    assert found.startswith(f"{tmp_path / 'own.toml'}: {said}")
    assert not (tmp_path / "run").exists()


def test_further_metrics_of_a_flag_go_before_the_space_and_are_kept(tmp_path: Path) -> None:
    flag = {"further_metrics": ("tasks_of_users:spread",)}
    run = searched(tmp_path, "largest", "at_least = {val_spread = 0.1}", budget=2, **flag)
    assert run.summary["further_metrics"] == ["spread"]
    assert resumed(run.path, budget=3) == 0
    assert len(pd.read_csv(run.path / "trials.csv").val_spread.dropna()) == 3
    space = run_files.resume_run(run.path, {}, {})[1]
    assert space.settings.further_metrics == flag["further_metrics"]


def test_a_limit_is_part_of_what_is_searched(tmp_path: Path) -> None:
    run = searched(tmp_path, "spread", "at_least = {val_spread = 0.1}", budget=2)
    file = run.path / "space.toml"
    file.write_text(file.read_text().replace("val_spread = 0.1", "val_spread = 0.2"))
    assert "changed since it was begun: lower limits; " in fault(lambda: resumed(run.path, budget=3))
