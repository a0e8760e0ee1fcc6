"""What goes wrong in days, caused for real: processes killed, hung and starved, a full disk, a locked database.

`python -m pytest -m faults` runs a few of each; `FAULTS=whole python -m pytest -n 0 -s -m faults` what is in
docs/reliability.md.
"""

import os
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from deadlines import WAIT, scaled
from searches import SPACE, points, searched, summary_of, trials_of, without_ray
from test_cluster_files import FEATURES_OFF, TRACE
from test_launch import MODULE, SHADOWS, Lab, ended, final, until

from tune_prune.results import records

pytestmark = [pytest.mark.faults, pytest.mark.timeout(scaled(3600))]
LONG = scaled(1800)
"""Seconds within which even a search that loses many of its workers ends, on a machine that has other things to do."""

WHOLE = os.environ.get("FAULTS") == "whole"
HEAD = """
import sys
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
print(nodes.address, flush=True)
if sys.stdin.readline():
    nodes.remove_node(second, allow_graceful=False)
    sys.stdin.read()
nodes.shutdown()
"""

PRUNERS = '''

def slow(weight):
    time.sleep(0.1)
    return weight.abs()


def hangs_once(weight):
    """The first of all calls in a worker never returns."""
    if not in_driver() and not (HERE / "hung").exists():
        (HERE / "hung").touch()
        time.sleep(100000)
    return weight.abs()


def hungry_once(weight):
    """The first of all calls in a worker asks for more memory than there can be."""
    if not in_driver() and not (HERE / "fed").exists():
        (HERE / "fed").touch()
        bytearray(1 << 62)
    return weight.abs()


def dies(weight):
    """Takes its process with it, in each trial that is asked for, at its first start."""
    if not in_driver() and random.random() < 0.1:
        os.kill(os.getpid(), 9)
    return weight.abs()


def needs_a_device(weight):
    """Finds no memory on the device where another trial has its own; the first ones wait for each other."""
    if in_driver():
        return weight.abs()
    import torch
    mine, met, end = HERE / f"{os.getpid()}.running", HERE / "met", time.monotonic() + WAIT
    mine.touch()
    try:
        while True:
            others = [path for path in HERE.glob("*.running") if os.path.exists(f"/proc/{path.stem}") and path != mine]
            if others:
                met.touch()
                raise torch.OutOfMemoryError("CUDA out of memory")
            if met.exists() or time.monotonic() > end:
                return weight.abs()
            time.sleep(0.02)
    finally:
        mine.unlink()


def not_a_number(weight):
    return weight * float("nan")


def in_driver():
    import ray
    return not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None
'''.replace("WAIT", str(WAIT))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    (tmp_path / "my_lab.py").write_text("import random\n" + MODULE + PRUNERS)
    yield made
    made.kill()


def space(lab: Lab, pruner: str, more: str = "") -> None:
    text = SPACE.replace("toys:", "my_lab:").replace('["mag", "taylor1"]', f'"my_lab:{pruner}"')
    (lab.folder / "toy.toml").write_text(text + more)


def search(lab: Lab, *flags: object) -> "subprocess.Popen[str]":
    if (lab.folder / "run" / "run.json").exists():
        return lab.start("-m", "tune_prune", "search", "--resume", "run", *flags)
    return lab.start("-m", "tune_prune", "search", "--force", "--space", "toy.toml", "--run-dir", "run", *flags)


def check(run_dir: Path, trials: int) -> list[records.TrialRecord]:
    """Every trial is there once and has ended, in the records, in the study and in the tables."""
    found = records.read_all(run_dir)
    assert [record.trial for record in found] == list(range(trials))
    assert {record.state for record in found} <= set(records.FINAL_STATES)
    study = optuna.load_study(study_name="tune_prune", storage=f"sqlite:///{run_dir / 'study.db'}")
    assert [trial.number for trial in study.trials] == list(range(trials))
    assert all(trial.state.is_finished() for trial in study.trials)
    assert list(pd.read_csv(run_dir / "trials.csv")["trial"]) == list(range(trials))
    return found


def measured(run_dir: Path) -> dict[int, records.TrialRecord]:
    """What each trial that has ended measured, its seconds among it; why it was let through may be noted later."""
    ended_ = [record for record in records.read_all(run_dir) if record.state in records.FINAL_STATES]
    return {record.trial: replace(record, reason="") for record in ended_}


def test_the_driver_killed_at_random_moments(lab: Lab) -> None:
    space(lab, "slow")
    run_dir, times, budget = lab.folder / "run", 20 if WHOLE else 2, 160 if WHOLE else 12
    rng = random.Random(1)
    before: dict[int, records.TrialRecord] = {}
    for _ in range(times):
        process = search(lab, "--budget", budget, "--max-concurrent", 2, "--quiet")
        wanted = rng.randint(1, 3)
        until(lambda: process.poll() is not None or len(final(run_dir)) >= len(before) + wanted)  # noqa: B023
        moment = time.monotonic() + rng.random()  # anywhere in what follows
        until(lambda: process.poll() is not None or time.monotonic() > moment)  # noqa: B023
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        lab.kill()
        now = measured(run_dir)
        assert {number: now.get(number) for number in before} == before  # none lost, none run twice
        before = now
    code, _, err = ended(search(lab, "--budget", budget, "--max-concurrent", 2, "--quiet"), LONG)
    assert (code, err) == (0, "")
    after = measured(run_dir)
    assert {number: after[number] for number in before} == before
    found = check(run_dir, budget)
    failed = [record for record in found if record.state == "failed"]
    assert all("cut off" in record.reason for record in failed)
    print(
        f"driver: {times} kills, {len(before)} results before the last start, none lost or run twice, {budget} trials"
    )


def test_a_killed_search_is_the_one_that_was_not_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial by trial, with early stopping; every other kill comes as soon as a round is recorded, before a verdict."""
    space(lab, "slow")
    text = (lab.folder / "toy.toml").read_text()
    (lab.folder / "toy.toml").write_text(text.replace("rounds = 2\nsteps", "rounds = 3\nsteps", 1))
    times, budget = (20, 60) if WHOLE else (2, 14)
    monkeypatch.syspath_prepend(lab.folder)
    with without_ray():
        assert searched(lab.folder / "toy.toml", "whole", seed=3, budget=budget, max_concurrent=1)[0] == 0
    whole = lab.folder / "whole"
    if WHOLE:
        assert set(trials_of(whole)["state"]) == {"complete", "stopped"}
    expected, run_dir, rng = measured(whole), lab.folder / "run", random.Random(2)
    flags = ("--budget", budget, "--max-concurrent", 1, "--quiet")
    alike = in_window = 0
    for kill in range(times):
        process = search(lab, *flags, *(() if (run_dir / "run.json").exists() else ("--seed", 3)))
        before = len(final(run_dir))
        until(lambda: process.poll() is not None or len(final(run_dir)) > before)  # noqa: B023
        if kill % 2:
            seen = rounds_recorded(run_dir)
            until(lambda: process.poll() is not None or rounds_recorded(run_dir) > seen, pause=0.0)  # noqa: B023
        else:
            moment = time.monotonic() + rng.random()
            until(lambda: process.poll() is not None or time.monotonic() > moment)  # noqa: B023
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        lab.kill()
        in_window += any(record.state == "running" and record.points for record in records.read_all(run_dir))
        alike += all(timeless(record) == timeless(expected[at]) for at, record in measured(run_dir).items())
    assert ended(search(lab, *flags), LONG) == (0, "", "")
    check(run_dir, budget)
    assert alike == times
    assert trials_of(run_dir).equals(trials_of(whole))
    assert points(run_dir).equals(points(whole))
    print(f"driver: {alike} of {times} kills left the search as it was, {in_window} after a recorded round")


def rounds_recorded(run_dir: Path) -> int:
    """How many rounds all trials have recorded."""
    return sum(len(record.points) for record in records.read_all(run_dir))


def timeless(record: records.TrialRecord) -> records.TrialRecord:
    """The record without times."""
    return replace(record, seconds=0, cpu_seconds=0, points=[replace(point, seconds=0) for point in record.points])


def test_workers_killed_at_random(lab: Lab) -> None:
    space(lab, "dies")
    trials = 40 if WHOLE else 8
    code, _, err = ended(search(lab, "--budget", trials, "--max-concurrent", 2, "--quiet"), LONG)
    assert (code, err) == (0, "")
    found = check(lab.folder / "run", trials)
    failed = [record for record in found if record.state == "failed"]
    assert all(record.reason == "its worker process died, again after each retry" for record in failed)
    print(f"workers: {trials} trials, budget met, {len(failed)} given up after three deaths")


def test_a_trial_that_hangs_is_given_up(lab: Lab) -> None:
    space(lab, "hangs_once")
    limit = round(scaled(15))  # within which the others end
    code, _, err = ended(search(lab, "--budget", 4, "--max-concurrent", 1, "--trial-timeout", f"{limit}s", "--quiet"))
    assert (code, err) == (0, "")
    found = check(lab.folder / "run", 4)
    assert [record.state for record in found].count("failed") == 1
    assert found[0].reason == f"it took longer than --trial-timeout, {limit} s"


def test_a_trial_without_memory_fails_alone(lab: Lab) -> None:
    space(lab, "hungry_once")
    code, _, err = ended(search(lab, "--budget", 4, "--max-concurrent", 1, "--quiet"))
    assert (code, err) == (0, "")
    found = check(lab.folder / "run", 4)
    assert [(record.state, record.reason[:11]) for record in found if record.state == "failed"] == [
        ("failed", "MemoryError")
    ]
    assert "MemoryError" in pd.read_csv(lab.folder / "run" / "trials.csv")["reason"][0]


def test_a_device_without_memory_for_two(lab: Lab) -> None:
    space(lab, "needs_a_device")
    code, _, err = ended(search(lab, "--budget", 6, "--max-concurrent", 2, "--quiet"))
    assert (code, err) == (0, "")
    assert {record.state for record in check(lab.folder / "run", 6)} <= {"complete", "stopped"}
    assert summary_of(lab.folder / "run")["concurrency"] == 1


def test_scores_that_are_no_numbers_end_the_run_with_what_there_is(lab: Lab) -> None:
    space(lab, "not_a_number")
    code, _, err = ended(search(lab, "--budget", 20, "--max-concurrent", 2, "--quiet"))
    assert code == 1
    assert err.count("\n") == 1
    assert "trials failed, more than --max-failures 0.5; the last: ScoreError: pruner my_lab:not_a_number gave" in err
    assert (lab.folder / "run" / "trials.csv").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_and_a_second_one(lab: Lab, number: signal.Signals, code: int) -> None:
    space(lab, "slow")
    run_dir = lab.folder / "run"
    process = search(lab, "--budget", 100, "--max-concurrent", 2, "--quiet")
    until(lambda: len(final(run_dir)) >= 1)
    process.send_signal(number)
    assert ended(process) == (code, "", "")
    assert summary_of(run_dir)["trials"]["completed"] >= 1
    process = search(lab, "--budget", 100, "--max-concurrent", 2, "--quiet")
    done = len(final(run_dir))
    until(lambda: len(final(run_dir)) > done)
    process.send_signal(number)
    process.send_signal(number)
    process.communicate(timeout=WAIT)
    assert process.returncode == code
    lab.kill()


@pytest.mark.parametrize("kilobytes", range(660, 760, 25) if WHOLE else [700])  # another write finds no room
def test_a_disk_that_is_full(lab: Lab, kilobytes: int) -> None:
    small = lab.folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, f"size={kilobytes}k", "tmpfs", small], capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    (lab.folder / "run").symlink_to(small / "run")
    (small / "run").mkdir()
    try:
        space(lab, "mag")
        process = lab.start("-m", "tune_prune", "search", "--force", "--space", "toy.toml", "--run-dir", "small/run",
                            "--budget", 60, "--max-concurrent", 2, "--quiet")  # fmt: skip
        code, _, err = ended(process)
        assert code == 1, err
        assert err.count("\n") == 1, err
        assert "space left" in err or "full" in err, err
        run_dir = small / "run"
        for path in (run_dir / "results").glob("*.json"):
            records.read(path)  # nothing truncated
        assert not [path for path in run_dir.rglob("*") if ".tmp" in path.name]
        before = final(run_dir)
        subprocess.run([*mount[:1], "-o", "remount,size=100m", small], check=True)
        again = lab.start("-m", "tune_prune", "search", "--resume", "small/run", "--budget", 60, "--quiet")
        code, _, err = ended(again)
        assert (code, err) == (0, "")
        after = final(run_dir)
        assert {name: after[name] for name in before} == before
        check(run_dir, 60)
        print(f"full disk: {len(before)} of 60 trials before, none lost")
    finally:
        lab.kill()
        subprocess.run(["umount", "-l", small], check=True)


def test_a_study_that_another_program_locks_for_a_while(lab: Lab) -> None:
    space(lab, "slow")
    run_dir = lab.folder / "run"
    process = search(lab, "--budget", 6, "--max-concurrent", 1, "--quiet")
    until(lambda: len(final(run_dir)) >= 1)
    other = sqlite3.connect(run_dir / "study.db", isolation_level=None, timeout=WAIT)
    other.execute("BEGIN EXCLUSIVE")
    waits = threading.Timer(5.0, lambda: None)
    waits.start()
    waits.join()
    other.rollback()
    other.close()
    assert ended(process) == (0, "", "")
    check(run_dir, 6)


@contextmanager
def two_nodes(environment: dict[str, str]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Starts two nodes of one CPU each, outside the search's directory; yields their address and how to end one."""

    def remove() -> None:
        process.stdin.write("remove\n")
        process.stdin.flush()

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", HEAD]
    with subprocess.Popen(command, cwd="/", env=environment, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process.stdout.readline().strip(), remove
        finally:
            process.stdin.close()


def test_a_node_of_a_cluster_goes_while_it_works(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    (lab.folder / "my_lab.py").write_text((lab.folder / "my_lab.py").read_text() + TRACE)
    for name in SHADOWS:  # Ray puts a copy of the working directory first on the nodes' path
        (lab.folder / f"{name}.py").unlink()
    space(lab, "traced", FEATURES_OFF)
    traces, run_dir = lab.folder / "traces", lab.folder / "run"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRACES": str(traces), "NODES": "2"}
    with two_nodes(environment) as (address, remove):
        flags = ("--budget", 12, "--max-concurrent", 2, "--address", address, "--quiet")
        process = search(lab, *flags)
        until(lambda: len(final(run_dir)) >= 2)
        remove()
        assert ended(process) == (0, "", "")
    check(run_dir, 12)
    nodes = [line.split()[0] for line in traces.read_text().splitlines()]
    assert len(set(nodes)) == 2
