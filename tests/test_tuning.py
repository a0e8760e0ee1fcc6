"""What of tuning needs no Ray; the rest is in test_launch.py."""

import logging
import os
import signal
import socket
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from conftest import fault

from tune_prune import budget, tuning
from tune_prune.budget import Budget
from tune_prune.config import Config
from tune_prune.tuning import Stop

HERE = {"CPU": 8.0, "GPU": 2.0}


class Elsewhere(Config):
    """Settings that ask nothing of this machine, for trials that take a share of a GPU."""

    @property
    def gpu_share(self) -> float:
        return self.gpus_per_trial or 0.0

    def _check_cpus(self, there: int) -> None:
        pass

    def _check_gpus(self, there: int) -> None:
        pass


def concurrency(there: dict[str, float] = HERE, **given: Any) -> int:
    return tuning._concurrency(Elsewhere(10, 0.5, **given), there)


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
    ],
)
def test_as_many_trials_as_fit(given: dict[str, Any], fits: int) -> None:
    assert concurrency(**given) == fits


def test_a_trial_that_fits_nowhere() -> None:
    assert fault(lambda: concurrency(cpus_per_trial=9.0)) == (
        "a trial asks for 9 CPUs and there are 8 CPUs and 2 GPUs; ask for less"
    )
    assert fault(lambda: concurrency({"CPU": 4.0}, gpus_per_trial=0.5)) == (
        "a trial asks for 1 CPUs and 0.5 GPUs and there are 4 CPUs and 0 GPUs; ask for less"
    )


def test_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(budget.time, "monotonic", lambda: now)
    stop = Stop(Budget(seconds=30, began=100.0))
    assert (stop.stop_all(), stop.reason) == (False, "")
    now = 129.9
    assert not stop.stop_all()
    now = 130.0
    assert (stop.stop_all(), stop.reason) == (True, "time budget")
    assert not stop("a trial", {"done": False})
    endless = Stop(Budget(3))
    now = 1e9
    assert not endless.stop_all()


def test_a_trial_is_stopped_where_the_judge_says_so_and_it_goes_on() -> None:
    stop = Stop(Budget(3))
    stop.judge = lambda name: name == "bad"
    answers = [stop(name, {"done": done}) for name, done in (("bad", False), ("bad", True), ("good", False))]
    assert answers == [True, False, False]
    assert not stop.stop_all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_stops_in_order_and_a_second_at_once(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(tuning.os, "_exit", codes.append)
    before = signal.getsignal(number)
    stop = Stop(Budget(3))
    with stop.on_signals():
        os.kill(os.getpid(), number)
        assert (stop.signal, stop.reason, stop.stop_all(), codes) == (number, "interrupted", True, [])
        os.kill(os.getpid(), number)
        assert codes == [128 + number]
    assert signal.getsignal(number) == before


def test_signals_of_a_main_thread_that_is_not_ours() -> None:
    before = signal.getsignal(signal.SIGINT)
    found: list[object] = []

    def elsewhere() -> None:
        with Stop(Budget(3)).on_signals():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]


def test_ray_talks_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("ray")
    monkeypatch.setattr(logger, "handlers", logger.handlers)
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    tuning._log_to(tmp_path / "ray.log")
    assert not list(tmp_path.iterdir())
    logging.getLogger("ray.tune").error("something")
    assert (tmp_path / "ray.log").read_text() == "something\n"
    with redirect_stdout(tuning._ToLog()):
        print("\x1b[33m(raylet)\x1b[0m a worker died\n")
    assert (tmp_path / "ray.log").read_text().endswith("(raylet)\x1b[0m a worker died\n")
    assert capfd.readouterr() == ("", "")
    logger.handlers[0].close()


@pytest.mark.parametrize("port", ["closed", "1000000", "here"])
def test_an_address_where_nothing_listens_is_found_out_at_once(port: str, tmp_path: Path) -> None:
    with socket.socket() as bound:  # taken and not listening: nobody else can answer there
        bound.bind(("127.0.0.1", 0))
        number = str(bound.getsockname()[1]) if port == "closed" else port
        config = Config(budget=1, acc_tradeoff=1, address=f"127.0.0.1:{number}")
        said = fault(lambda: tuning.started_ray(config, 0, tmp_path / "ray.log").__enter__())
        assert said.startswith(f"--address 127.0.0.1:{number}: no Ray cluster answers there")
