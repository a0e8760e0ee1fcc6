"""From a command line to the files of a run, with Ray, in processes of their own, from another working directory.

A start of Ray takes seconds, so there are two: one search that is interrupted, and goes on to its end. What needs no
Ray is in test_search.py; searches that are killed are in test_faults.py.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import pandas as pd
import pytest
import torch
from deadlines import WAIT
from searches import SPACE, points, searched, summary_of, without_ray

import tune_prune
from tune_prune.cli import main
from tune_prune.results import records
from tune_prune.tasks.datasets import load_data
from tune_prune.workflows import prune

ROOT = Path(tune_prune.__file__).parents[1]

MODULE = '''
import os
import time
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent
CALLS = 0


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


def images():
    generator = torch.Generator().manual_seed(5)
    patterns = torch.rand(4, 1, 8, 8, generator=generator)

    def split(n):
        labels = torch.randint(4, (n,), generator=generator)
        noisy = patterns[labels] + 0.7 * torch.randn(n, 1, 8, 8, generator=generator)
        return noisy.mul(128).clamp(0, 255).to(torch.uint8), labels

    return split(240), split(120), split(120)


def mag(weight):
    """Stands still at the call that is asked for, as long as there is a file `hold`."""
    global CALLS
    CALLS += 1
    if CALLS == int(os.environ.get("STALL_AT", "0")):
        (HERE / "stalled").touch()
        while (HERE / "hold").exists():
            time.sleep(0.02)
    return weight.abs()
'''


SHADOWS = ("torch", "safetensors", "cloudpickle", "typer")
"""Modules that lie in the working directory as well; what is installed is found before these."""


class Lab:
    """A working directory with a user's own module and space, and the processes that were started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"LAB_{uuid4().hex}"
        (folder / "my_lab.py").write_text(MODULE)
        for name in SHADOWS:
            (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'a').write({name!r})")
        (folder / "toy.toml").write_text(
            SPACE.replace("toys:", "my_lab:").replace('["mag", "taylor1"]', '"my_lab:mag"')
        )

    def start(self, *command: object, stall_at: int = 0) -> "subprocess.Popen[str]":
        """Start a command in a session of its own. With `stall_at` its worker stands still at that call."""
        hold, stalled = self.folder / "hold", self.folder / "stalled"
        if stall_at:
            hold.touch()
            stalled.unlink(missing_ok=True)
        env = os.environ | {"OMP_NUM_THREADS": "1", self.mark: "1", "STALL_AT": str(stall_at), "PYTHONPATH": str(ROOT)}
        env["RAY_ADDRESS"] = "127.0.0.1:9"  # without --address no cluster is joined, whatever the environment says
        arguments = [sys.executable, *map(str, command)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(arguments, cwd=self.folder, env=env, start_new_session=True, **pipes)

    def left(self) -> list[int]:
        """The processes that were started here and still run, Ray's among them."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:  # it ended meanwhile, or is not ours
                continue
        return found

    def kill(self) -> None:
        """Kill all of them, as a power cut does."""
        until(lambda: not [os.kill(number, signal.SIGKILL) for number in self.left()])


def until(holds: Callable[[], object], pause: float = 0.05) -> None:
    """Wait for something, and look again after a pause in seconds."""
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(pause)


def ended(process: "subprocess.Popen[str]", deadline: float = WAIT) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, err = process.communicate(timeout=deadline)
    return process.returncode, out, err


def final(run_dir: Path) -> dict[str, tuple[bytes, int]]:
    """The result files of the trials that have ended: what they hold, and when they were written."""
    paths = [path for path in (run_dir / "results").glob("*.json") if records.read(path).state in records.FINAL_STATES]
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"))
    yield made
    made.kill()


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Path:
    """The directory of the same search without Ray, from beginning to end in this process."""
    with pytest.MonkeyPatch.context() as patch, without_ray():
        patch.syspath_prepend(lab.folder)
        code, run_dir = searched(lab.folder / "toy.toml", "undisturbed", seed=3, max_concurrent=1)
    assert code == 0
    return run_dir


@pytest.fixture(scope="module")
def interrupted(lab: Lab) -> Path:
    """The directory of a search after a SIGINT in the middle of a trial."""
    run_dir = lab.folder / "cut"
    flags = ("--space", "toy.toml", "--force", "--run-dir", "cut", "--seed", 3, "--max-concurrent", 1, "--quiet")
    process = lab.start("-m", "tune_prune", "search", *flags, stall_at=9)  # in the first of a trial's two rounds
    until((lab.folder / "stalled").exists)
    assert len(final(run_dir)) >= 2
    held_by_another(run_dir)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    (lab.folder / "hold").unlink()
    assert ended(process) == (130, "", "")
    study = optuna.load_study(study_name="tune_prune", storage=f"sqlite:///{run_dir / 'study.db'}")
    cut_off = [trial.user_attrs for trial in study.trials if not trial.state.is_finished()]
    assert [attrs["starts"] for attrs in cut_off] == [0]  # an end in order is no crash
    return run_dir


def held_by_another(run_dir: Path) -> None:
    """A second process, this one, is refused."""
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as err:
        patch.syspath_prepend(run_dir.parent)
        patch.setattr(sys, "argv", ["tune-prune", "search", "--resume", str(run_dir), "--quiet"])
        with pytest.raises(SystemExit) as refused:
            main.main()
    assert refused.value.code == 75
    assert err.getvalue().startswith(f"tune-prune: {run_dir}: another process works there")
    assert err.getvalue().count("\n") == 1


@pytest.fixture(scope="module")
def finished(lab: Lab, interrupted: Path) -> Path:
    """It went on, to its end."""
    before = final(interrupted)
    code, out, err = ended(lab.start(ROOT / "launch.py", "--resume", "cut", "--json"))
    assert (code, err) == (0, "")
    assert not (lab.folder / "ran").exists()
    assert json.loads(out) == summary_of(interrupted)
    after = final(interrupted)
    assert {name: after[name] for name in before} == before  # nothing was run twice
    assert len(after) == 8
    return interrupted


def test_what_an_interrupted_search_leaves(interrupted: Path) -> None:
    summary = summary_of(interrupted)
    assert 2 <= summary["trials"]["completed"] == len(final(interrupted)) < 8
    assert summary["dense"]["test_error"] is None  # the front is not the final one
    for name in ("points.csv", "trials.csv", "pareto.csv", "report.html", "pareto.png"):
        assert (interrupted / name).is_file()


def test_every_file_of_a_search(finished: Path) -> None:
    there = {path.name for path in finished.iterdir()}
    assert there >= {
        *("summary.json", "points.csv", "trials.csv", "pareto.csv", "confs", "best.conf", "checkpoints"),
        *("report.html", "pareto.png", "study.db", "results"),
    }
    assert "ray" not in there
    summary = summary_of(finished)
    assert summary["trials"]["completed"] == 8
    assert (summary["budget"], summary["seed"], summary["concurrency"]) == (8, 3, 1)
    front = pd.read_csv(finished / "pareto.csv")
    assert len(summary["front"]) == len(front) == len(list((finished / "confs").iterdir()))


def test_every_checkpoint_holds_what_is_stated(lab: Lab, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(lab.folder)
    data = load_data("my_lab:images")
    for member in summary_of(finished)["front"]:
        found = prune.test_checkpoint(finished / member["checkpoint"], data, torch.device("cpu"), lambda line: None)
        assert (found["compression"], found["test_error"]) == (member["compression"], member["test_error"])


def test_no_trial_is_left_over(finished: Path) -> None:
    study = optuna.load_study(study_name="tune_prune", storage=f"sqlite:///{finished / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 8


def test_one_seed_finds_the_same_whatever_came_between(finished: Path, undisturbed: Path) -> None:
    assert points(finished).equals(points(undisturbed))
    assert summary_of(finished)["front"] == summary_of(undisturbed)["front"]
