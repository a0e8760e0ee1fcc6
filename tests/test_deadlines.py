"""The deadlines of the tests themselves."""

import ast
from pathlib import Path

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


def fixed_waits(code: str) -> list[int]:
    """The lines on which a deadline is a number of seconds and not one of those in deadlines.py."""
    lines = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [word.value for word in node.keywords if word.arg == "timeout"] if name != "replace" else []
            given += node.args if name == "wait" or (name == "timeout" and node.args) else []
        elif isinstance(node, ast.BinOp) and ast.unparse(node.left) == "time.monotonic()":
            given = [node.right]
        else:
            continue
        seconds = [each.value for each in given if isinstance(each, ast.Constant)]
        lines += [node.lineno for value in seconds if isinstance(value, int | float) and value >= 1]
    return lines


def test_no_test_waits_for_a_number_of_seconds() -> None:
    asked = "process.wait(20)\nrun(words, timeout=9.5)\nend = time.monotonic() + 60\nmark.timeout(300)\n"
    assert fixed_waits(asked) == [1, 2, 3, 4]
    assert fixed_waits("process.wait(WAIT)\nlock.acquire(timeout=0)\nend = time.monotonic() + WAIT\n") == []
    found = {path.name: fixed_waits(path.read_text("utf-8")) for path in Path(__file__).parent.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}
