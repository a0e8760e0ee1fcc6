"""The parts of a session that need no Ray; test_launch.py and test_cluster.py test the others."""

import logging
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from toys import fault

from tune_prune.distributed import session
from tune_prune.training.resources import Resources

HERE = {"CPU": 8.0, "GPU": 2.0}


class Elsewhere(Resources):
    """Resources that are not checked on this machine, for trials that take a share of a GPU."""

    @property
    def gpu_share(self) -> float:
        return self.gpus_per_trial or 0.0

    def _check_cpus(self, count: int) -> None:
        pass

    def _check_gpus(self, count: int) -> None:
        pass


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The processors and GPUs that Ray has."""
    has = HERE.copy()
    monkeypatch.setattr(session.ray, "cluster_resources", lambda: has)
    return has


def concurrency(**given: Any) -> int:
    return session._count_concurrent(Elsewhere(**given))


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({}, 8),
        ({"cpus_per_trial": 3.0}, 2),
        ({"cpus_per_trial": 0.5}, 16),
        ({"max_concurrent": 5}, 5),
        ({"max_concurrent": 50}, 8),
        ({"gpus_per_trial": 0.25}, 8),
        ({"gpus_per_trial": 0.5}, 4),
        ({"gpus_per_trial": 2.0}, 1),
        ({"workers_per_trial": 3}, 2),
        ({"workers_per_trial": 2, "gpus_per_trial": 0.25}, 4),
        ({"workers_per_trial": 2, "gpus_per_trial": 1.0}, 1),
    ],
)
@pytest.mark.usefixtures("has")
def test_as_many_trials_as_fit(given: dict[str, Any], fits: int) -> None:
    assert concurrency(**given) == fits


def test_a_trial_that_fits_nowhere(has: dict[str, float]) -> None:
    assert fault(lambda: concurrency(cpus_per_trial=9.0)) == (
        "a trial asks for 9 CPUs and there are 8 CPUs and 2 GPUs; ask for less"
    )
    assert fault(lambda: concurrency(workers_per_trial=5, cpus_per_trial=2.0)) == (
        "a trial asks for 2 CPUs for each of its 5 processes and there are 8 CPUs and 2 GPUs; ask for less"
    )
    has |= {"CPU": 4.0, "GPU": 0.0}
    assert fault(lambda: concurrency(gpus_per_trial=0.5)) == (
        "a trial asks for 1 CPUs and 0.5 GPUs and there are 4 CPUs and 0 GPUs; ask for less"
    )


def test_a_cluster_may_grow_to_what_is_asked_for(has: dict[str, float]) -> None:
    has["CPU"] = 0.0
    assert concurrency(max_concurrent=64, address="auto") == 64


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"gpus_per_trial": 0.25}, [(8, 0.25), (4, 0.5), (2, 1.0)]),
        ({"gpus_per_trial": 1 / 3}, [(6, 1 / 3), (3, 2 / 3), (2, 1.0)]),
        ({"gpus_per_trial": 0.25, "max_concurrent": 3}, [(3, 0.25), (3, 0.5), (2, 1.0)]),
        ({}, [(8, 0.0), (4, 0.0), (2, 0.0), (1, 0.0)]),
    ],
)
@pytest.mark.usefixtures("has")
def test_half_as_many_on_a_device_until_none_shares_it(given: dict[str, Any], steps: list[tuple[int, float]]) -> None:
    resources, at_a_time, found = Elsewhere(**given), concurrency(**given), list[tuple[int, float]]()
    found.append((at_a_time, resources.gpu_share))
    while not session.has_exclusive_device(resources, at_a_time):
        resources, at_a_time = session.reduce_concurrency(resources, at_a_time)  # type: ignore[assignment]
        found.append((at_a_time, resources.gpu_share))
    assert found == steps


def test_ray_logs_to_a_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("ray")
    caplog.set_level(logging.ERROR, "ray")  # as Ray does when it starts
    monkeypatch.setattr(logger, "handlers", logger.handlers)
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    session._log_to(tmp_path / "ray.log")
    assert not list(tmp_path.iterdir())
    logging.getLogger("ray.tune").error("something")
    assert (tmp_path / "ray.log").read_text() == "something\n"
    with redirect_stdout(session._ToLog()):
        print("\x1b[33m(raylet)\x1b[0m a worker died\n")
    assert (tmp_path / "ray.log").read_text().endswith("(raylet)\x1b[0m a worker died\n")
    assert capfd.readouterr() == ("", "")
    logger.handlers[0].close()


def test_workers_look_for_modules_where_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray does with it is in test_launch.py, whose directory has files that are called as libraries are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "/lib", "/last"])
    started: list[Any] = []
    monkeypatch.setattr(session.ray, "init", lambda **given: started.append(given["job_config"]))
    session._start(0)
    path = ["/first of a worker"]
    for entry in started[0]._py_driver_sys_path:  # as Ray's workers do
        path.insert(0, entry)
    assert path == [os.getcwd(), "/lib", "/last", "/first of a worker"]
    assert started[0]._runtime_env_has_working_dir()  # so that Ray adds nothing


def test_a_full_disk_is_not_reported_by_rays_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("ray")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    session._log_to(Path("/dev/full"))
    logger.error("something")
    session._silence()  # which closes the file
    assert capfd.readouterr() == ("", "")
    session._log_to(Path("/dev/full"))
    logger.error("%d", "no number")  # a mistake of the caller's is no matter of the disk
    assert "no number" in capfd.readouterr().err
    session._silence()


def test_a_cluster_that_is_not_there_leaves_no_directory(tmp_path: Path) -> None:
    resources = Resources(address="127.0.0.1:here")
    said = fault(lambda: session.check_cluster(resources, tmp_path / "run"))
    assert said.startswith("--address 127.0.0.1:here: no Ray cluster answers there")
    assert list(tmp_path.iterdir()) == []
