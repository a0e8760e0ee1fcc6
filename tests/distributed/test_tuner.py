"""When a search ends; the rest of tuning is in test_launch.py."""

import os
import signal
import threading

import pytest

from tune_prune.distributed import tuner
from tune_prune.distributed.tuner import SearchStopper
from tune_prune.hpo import budget
from tune_prune.hpo.budget import Budget


def test_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(budget.time, "monotonic", lambda: now)
    stop = SearchStopper(Budget(seconds=30, began=100.0))
    assert (stop.stop_all(), stop.reason) == (False, "")
    now = 129.9
    assert not stop.stop_all()
    now = 130.0
    assert (stop.stop_all(), stop.reason) == (True, "time budget")
    assert not stop("a trial", {"done": False})
    endless = SearchStopper(Budget(3))
    now = 1e9
    assert not endless.stop_all()


def test_a_trial_is_stopped_where_the_judge_says_so_and_it_goes_on() -> None:
    stop = SearchStopper(Budget(3))
    stop.judge = lambda name: name == "bad"
    answers = [stop(name, {"done": done}) for name, done in (("bad", False), ("bad", True), ("good", False))]
    assert answers == [True, False, False]
    assert not stop.stop_all()


def test_a_crowd_is_sent_away_and_the_search_is_not_over() -> None:
    stop = SearchStopper(Budget(3))
    stop.out_of_memory = lambda: True
    assert (stop.stop_all(), stop.reason) == (True, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_stops_in_order_and_a_second_at_once(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(tuner.os, "_exit", codes.append)
    before = signal.getsignal(number)
    stop = SearchStopper(Budget(3))
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
        with SearchStopper(Budget(3)).on_signals():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]
