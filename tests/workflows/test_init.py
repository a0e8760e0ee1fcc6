"""Spaces that are proposed for a model, and searches without a file."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from searches import Trials
from toys import fault, mlp, task_of

import tune_prune
from tune_prune.hpo import space_reader
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import Evaluation
from tune_prune.training.resources import Resources
from tune_prune.workflows import init
from tune_prune.workflows.init import (
    LEARNING_RATES,
    ProposalRequest,
    choose_batches,
    find_learning_rate,
    is_held_back,
    propose_space,
    raise_learning_rate,
)

TOY = ("--model", "toys:mlp", "--data", "toys:images", "--force")


def test_a_space_is_written_for_a_model(command: Callable[..., int], tmp_path: Path) -> None:
    out = tmp_path / "made.toml"
    assert command("init", *TOY, "--optimizer", "torch.optim:AdamW", "--time", "5m", "--out", out) == 0
    text = out.read_text()
    assert text.startswith("# toys:mlp on toys:images, for about 5 minutes, ")
    raw = tomllib.loads(text)
    assert raw["task"] == {"model": "toys:mlp", "data": "toys:images", "optimizer": "torch.optim:AdamW"}
    assert list(raw["space"]["ratio"]) == ["2", "4"]
    assert space_reader.read(out).budget == 116
    assert command("init", *TOY, "--out", out) == 2  # it is there
    assert command("search", "--space", out, "--force", "--dry-run") == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--model", "toys:mlp"), "--model and --data go together: name both, or a --space"),
        (("--granularity", "channel"), "--granularity is of a search without --space; name --model and --data"),
        (
            ("--granularity", "channel", "--space", "lenet5"),
            "--granularity is of a search without --space; write granularity = 'channel' into [space] of the file",
        ),
        ((*TOY, "--granularity", "chanel"), "unknown granularity 'chanel'"),
        ((*TOY, "--space", "lenet5"), "--space names model and data already; leave out --model, --data and --weights"),
        (("--model", "toys:mlp", "--data", "toys:images"), "model 'toys:mlp' is near chance"),
        (
            ("--resume", "x", *TOY),
            "--resume goes on with the search as it was begun; leave out --run-dir, --model, --data",
        ),
    ],
)
def test_flags_that_do_not_fit(
    flags: tuple[str, ...], says: str, command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("search", *flags, "--run-dir", tmp_path / "run") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_search_without_a_file(trials: Trials, command: Callable[..., int], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert command("search", *TOY, "--acc-tradeoff", "60", "--budget", "2", "--run-dir", run_dir, "--quiet") == 0
    written = space_reader.read(run_dir / "space.toml")
    assert (written.model, written.data) == ("toys:mlp", "toys:images")
    assert command("search", "--resume", run_dir, "--budget", "3", "--quiet") == 0


def test_model_and_data_are_loaded_once(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "counted.py").write_text(f"""
import toys

def data():
    with open("{tmp_path}/loaded.txt", "a") as file:
        print("loaded", file=file)
    return toys.images()
""")
    model = ("--model", "toys:mlp", "--data", "counted:data", "--force")
    assert command("search", *model, "--budget", "2", "--dry-run") == 0
    assert (tmp_path / "loaded.txt").read_text() == "loaded\n"


def test_the_layer_of_the_scores_stays_whole(tmp_path: Path) -> None:
    say = Resources(device="cpu"), lambda line: None
    request = ProposalRequest("toys:Conv", "toys:images", seconds=60, force=True, granularity="filter")
    written = tomllib.loads(propose_space(request, *say))
    assert written["space"]["exclude"] == ["head"]
    assert written["space"]["batch_size"] == 32  # of 240 samples
    written = tomllib.loads(propose_space(replace(request, granularity="channel"), *say))
    assert written["space"]["granularity"] == "channel"
    assert written["space"]["ratio"] == {"*": {"low": 0, "high": 0.9}}


@pytest.mark.parametrize("granularity", ["chanel", ["weight", "chanel"]])
def test_an_unknown_granularity_is_refused_before_anything_is_loaded(granularity: object) -> None:
    said = fault(lambda: tune_prune.search("no_model:here", "no_data:here", granularity=granularity, time_budget=60))
    assert "unknown granularity 'chanel'" in said


def test_a_slow_step_is_timed_once_and_tried_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a model that takes a minute a step, for a search of five."""
    tried = []
    monkeypatch.setattr(init, "time_step", lambda *_: 60.0)

    def find(task: object, plan: Plan, device: torch.device, steps: int, tradeoff: float | None) -> float:
        tried.append((steps, plan))
        return 0.1

    monkeypatch.setattr(init, "find_learning_rate", find)
    monkeypatch.setattr(init, "is_held_back", lambda *_: False)
    request = ProposalRequest("toys:mlp", "toys:images", seconds=300, force=True)
    written = tomllib.loads(propose_space(request, Resources(device="cpu"), lambda line: None))
    ((steps, plan),) = tried
    assert steps == init.LEAST_RATE_STEPS
    space = written["space"]  # rates are tried with the very loss that the search trains by
    assert (plan.distill, plan.temperature, plan.batch_size) == (
        space["distill"], space["temperature"], space["batch_size"],
    )  # fmt: skip
    assert space["lr"] == {"low": 0.033, "high": 0.12, "log": True}
    assert (written["goal"]["budget"], written["space"]["rounds"], written["initial"]["trials"]) == (1, 8, 0)


@pytest.mark.parametrize(("seconds", "size"), [(5000.0, 128), (4999.0, 64), (2400.0, 32), (1.0, 32)])
def test_batches_are_smaller_where_time_is_short(monkeypatch: pytest.MonkeyPatch, seconds: float, size: int) -> None:
    """A step takes as many seconds as it has samples, of 128."""
    monkeypatch.setattr(init, "time_step", lambda model, task, plan: plan.batch_size / 128)
    monkeypatch.setattr(init.schedule_proposal, "list_batch_sizes", lambda count_steps: [128, 64, 32])
    torch.manual_seed(0)
    plan, step = choose_batches(task_of(mlp(), "toys:mlp"), torch.device("cpu"), 1, seconds)
    assert (plan.batch_size, step) == (size, size / 128)


@pytest.mark.parametrize(
    ("alone", "taught", "held_back"),
    [
        (1.0, 1.1, True),
        (1.0, 1.0, False),
        (1.2, 1.1, False),
        (1.0, None, True),
        (None, 1.0, False),
        (None, None, False),
    ],
)
def test_distillation_is_left_out_where_it_holds_back(
    monkeypatch: pytest.MonkeyPatch, alone: float | None, taught: float | None, held_back: bool
) -> None:
    """By the losses after some steps without a teacher and with one; None where the training diverged."""

    def train_at(task: object, plan: Plan, lr: float, device: torch.device, steps: int) -> Evaluation | None:
        assert (lr, steps) == (0.1, 7)
        loss = taught if plan.distill else alone
        return None if loss is None else Evaluation(5.0, loss)

    monkeypatch.setattr(init, "_train_at", train_at)
    torch.manual_seed(0)
    task = task_of(mlp(), "toys:mlp")
    assert is_held_back(task, Plan({}, {}, distill=0.5), 0.1, torch.device("cpu"), 7) == held_back
    monkeypatch.setattr(init, "find_learning_rate", lambda *_: 0.1)
    monkeypatch.setattr(init, "is_held_back", lambda *_: held_back)
    monkeypatch.setattr(init, "raise_learning_rate", lambda *_: 0.3)
    request = ProposalRequest("toys:mlp", "toys:images", seconds=60, force=True)
    written = tomllib.loads(propose_space(request, Resources(device="cpu"), lambda line: None))
    assert written["space"]["distill"] == (0 if held_back else 0.5)
    assert written["refine"]["lr"] == (0.3 if held_back else 0.1)


def test_the_learning_rate_is_the_highest_that_the_model_bears() -> None:
    torch.manual_seed(0)
    task = task_of(mlp(), "toys:mlp")
    tried = []

    def train_at(task: object, plan: Plan, lr: float, device: torch.device, steps: int) -> object:
        assert steps == 7
        tried.append(lr)
        return None if lr > 0.1 else task_dense if lr < 0.05 else worse

    task_dense, worse = task.dense, task.dense._replace(metric=task.dense.metric + 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tune_prune.workflows.init._train_at", train_at)
        assert find_learning_rate(task, Plan({}, {}), torch.device("cpu"), 7) == 0.03
        assert tried == [0.3, 0.1, 0.03]
        assert find_learning_rate(task, Plan({}, {}), torch.device("cpu"), 7, tradeoff=31.0) == 0.1
        assert raise_learning_rate(task, Plan({}, {}), 0.03, torch.device("cpu"), 7) == 0.03
        assert raise_learning_rate(task, Plan({}, {}), 0.03, torch.device("cpu"), 7, tradeoff=31.0) == 0.1
        patch.setattr("tune_prune.workflows.init._train_at", lambda *_: task_dense)
        assert raise_learning_rate(task, Plan({}, {}), 0.3, torch.device("cpu"), 7) == 0.3  # the highest of all
        patch.setattr("tune_prune.workflows.init._train_at", lambda *_: None)
        assert find_learning_rate(task, Plan({}, {}), torch.device("cpu")) == LEARNING_RATES[-1]
