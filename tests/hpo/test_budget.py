import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.hpo import budget
from tune_prune.hpo.budget import Budget


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which passes when a test sets it."""
    clock = [100.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: clock[0])
    return clock


def test_trials_alone(now: list[float]) -> None:
    made = Budget(10)
    now[0] = 1e9
    assert (made.remaining, made.trials_left(4), made.trials_left(12), made.expected_trials(3)) == (math.inf, 6, 0, 10)


def test_time_alone(now: list[float]) -> None:
    made = Budget(seconds=60, began=90.0, reserve=10.0)
    assert (made.elapsed, made.remaining, made.trials_left(1000)) == (10, 40, math.inf)
    assert made.expected_trials(20) == pytest.approx(100)  # a fifth of the time for trials has elapsed
    assert made.expected_trials(60, before=40) == pytest.approx(140)  # and 20 of them were run in it
    assert (made.expected_trials(0), made.expected_trials(40, before=40)) == (1, 41)
    now[0] = 140.0
    assert made.remaining == 0


def test_at_the_beginning_any_number_of_trials_is_expected(now: list[float]) -> None:
    assert Budget(seconds=60, began=now[0]).expected_trials(0) == math.inf


@given(st.integers(1, 100), st.floats(1, 1e4), st.integers(0, 100), st.floats(0.01, 2))
def test_whichever_comes_first(trials: int, seconds: float, started: int, share: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget.time, "monotonic", lambda: share * seconds)
        both, timed = Budget(trials, seconds, began=0.0), Budget(None, seconds, began=0.0)
        assert both.expected_trials(started) == min(trials, timed.expected_trials(started))
        assert (both.remaining <= 0) == (share * seconds >= seconds)
        assert timed.expected_trials(started) >= started
