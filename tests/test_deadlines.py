"""The deadlines of the tests themselves."""

import deadlines
import pytest
import pytest_timeout


def test_every_process_that_runs_tests_has_the_same(request: pytest.FixtureRequest) -> None:
    given = request.config.getoption("--timeout")
    assert given == pytest_timeout._get_item_settings(request.node).timeout == deadlines.TEST == deadlines.scaled(900)


def test_they_are_longer_on_a_slow_machine_and_never_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3 * deadlines.QUIET_SECONDS, 0.0, 0.1, 0.0, 1000.0])
    monkeypatch.setattr(deadlines.time, "perf_counter", lambda: next(clock))
    assert [deadlines._measure_slowness() for _ in range(3)] == [3.0, 1.0, deadlines.MOST]
    monkeypatch.setenv(deadlines.SLOWNESS, "3")
    assert deadlines.scaled(10) == 30
