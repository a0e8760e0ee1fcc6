"""Searches of tasks that are no classification in memory: a loss, a metric and batches of one's own."""

import json
import sys
from pathlib import Path

import pytest
from searches import SPACE, Trials, points, resumed, searched
from toys import fault

from tune_prune.distributed.worker_data import WorkerData
from tune_prune.results import conf
from tune_prune.training.resources import pick_device
from tune_prune.workflows.replay import replay

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
    .replace("acc_tradeoff = 5", "acc_tradeoff = 0.3")
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


def test_the_same_seed_finds_the_same(trials: Trials, space: Path) -> None:
    first, second = (searched(space, name, seed=3)[1] for name in ("one", "two"))
    assert points(first).equals(points(second))


def test_a_finished_search_measures_nothing_again(trials: Trials, space: Path) -> None:
    code, run = searched(space)
    before, started = points(run), trials.started
    assert resumed(run) == code
    assert trials.started == started
    assert points(run).equals(before)


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


def test_workers_open_such_data_themselves(trials: Trials, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[WorkerData] = []
    create = WorkerData.create
    monkeypatch.setattr(WorkerData, "create", lambda *given, **more: made.append(create(*given, **more)) or made[-1])
    searched(space)
    assert made[0].arrays == {}
    assert made[0].make_task().train.count == 128
