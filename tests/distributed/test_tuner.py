"""When a search ends; the rest of the tuner is in test_launch.py."""

import os
import pickle
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from tune_prune.distributed import tuner
from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.tuner import Interrupted, SearchStopper, SignalHandler
from tune_prune.hpo import budget
from tune_prune.hpo.budget import Budget, SearchEnd


@dataclass
class Answers:
    """A searcher that answers what a stopper asks."""

    should_stop: Callable[[str], bool] = lambda trial_id: False
    failure_reason: Callable[[], str] = str
    out_of_memory: bool = False
    fatal_error: Exception | None = None


def stopper(budget: Budget, signals: SignalHandler | None = None, **answers: Any) -> SearchStopper:
    return SearchStopper(budget, signals or SignalHandler(), cast(StudySearcher, Answers(**answers)))


def test_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(budget.time, "monotonic", lambda: now)
    stop = stopper(Budget(seconds=30, began=100.0))
    assert (stop.stop_all(), stop.end) == (False, SearchEnd.BUDGET)
    now = 129.9
    assert not stop.stop_all()
    now = 130.0
    assert (stop.stop_all(), stop.end) == (True, SearchEnd.TIME_BUDGET)
    assert not stop("a trial", {"done": False})
    endless = stopper(Budget(3))
    now = 1e9
    assert not endless.stop_all()


def test_the_first_reason_to_end_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = ["", "4 of 6 trials failed", "5 of 7 trials failed"]
    stop = stopper(Budget(3), failure_reason=lambda: reasons.pop(0))
    assert (stop.stop_all(), stop.end, stop.failure) == (False, SearchEnd.BUDGET, "")
    for _ in range(2):
        assert (stop.stop_all(), stop.end, stop.failure) == (True, SearchEnd.FAILED, "4 of 6 trials failed")


def test_more_training_is_not_worth_it() -> None:
    answers = [False, True, False]
    stop = SearchStopper(Budget(3), SignalHandler(), cast(StudySearcher, Answers()), lambda: answers.pop(0))
    assert (stop.stop_all(), stop.end) == (False, SearchEnd.BUDGET)
    for _ in range(2):
        assert (stop.stop_all(), stop.end) == (True, SearchEnd.ENOUGH)
    assert answers == [False]


def test_a_stopper_can_be_pickled_whatever_it_asks() -> None:
    lock = threading.Lock()  # which cannot
    pickle.dumps(SearchStopper(Budget(3), SignalHandler(), cast(StudySearcher, Answers()), lock.locked))


def test_an_error_of_the_search_itself_ends_it_though_no_trial_asks() -> None:
    assert stopper(Budget(3), fatal_error=OSError("full")).end is SearchEnd.ERROR


def test_a_trial_is_stopped_where_the_searcher_says_so_and_the_search_goes_on() -> None:
    stop = stopper(Budget(3), should_stop=lambda name: name == "bad")
    answers = [stop(name, {"done": done}) for name, done in (("bad", False), ("bad", True), ("good", False))]
    assert answers == [True, False, False]
    assert not stop.stop_all()


def test_trials_without_memory_are_ended_and_the_search_is_not() -> None:
    stop = stopper(Budget(3), out_of_memory=True)
    assert (stop.stop_all(), stop.end) == (True, SearchEnd.BUDGET)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_stops_in_order_and_a_second_at_once(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(tuner.os, "_exit", codes.append)
    before = signal.getsignal(number)
    with SignalHandler() as signals:
        signals.is_running = True
        stop = stopper(Budget(3), signals)
        os.kill(os.getpid(), number)
        assert (signals.number, stop.end, stop.stop_all(), codes) == (number, SearchEnd.INTERRUPTED, True, [])
        os.kill(os.getpid(), number)
        assert codes == [128 + number]
    assert signal.getsignal(number) == before


def test_a_signal_before_anything_runs_ends_it_at_once() -> None:
    with pytest.raises(Interrupted), SignalHandler() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.number == signal.SIGTERM


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    found: list[object] = []

    def elsewhere() -> None:
        with SignalHandler():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]
