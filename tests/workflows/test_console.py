import io
from dataclasses import replace

import pytest
from rich.console import Console
from toys import ended

from tune_prune.pruning.coverage import Coverage
from tune_prune.results.certificate import Certificate, Claim
from tune_prune.results.front import Member, TestResult, find_front
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.run_info import RunInfo
from tune_prune.workflows import console
from tune_prune.workflows.console import LINE_EVERY, SearchConsole, Status, format_clock

STATUS = Status(
    budget=100,
    share=0.25,
    done=7,
    running=2,
    stopped=1,
    failed=3,
    best_factor=25.04,
    best="1.23 %",
    hypervolume=0.123456,
    history=[0.0, 0.1, 0.123456],
    seconds=75,
    seconds_left=3725,
)


def outcome(members: list[Member], tested: dict[str, TestResult], dense: TestResult) -> SearchOutcome:
    """A search that came to a front."""
    facts = {"space": "toy", "model": "toys:mlp", "data": "toys:images", "seed": 0, "budget": 1, "concurrency": 1}
    rest = {"acc_tradeoff": 0.5, "dense_metric": 0.86, "shapes": {"2": (4, 2)}, "coverage": Coverage(8, 8)}
    info = RunInfo(**facts, device="cpu", sampler="tpe", command="", versions={}, **rest)  # type: ignore[arg-type]
    return SearchOutcome(info, [member.record for member in members], members, tested, dense)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(console, "time", made)
    return made


def make_console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=140, force_terminal=terminal, force_interactive=terminal)


def printed(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def test_one_line() -> None:
    assert STATUS.line() == (
        "7/100 trials done, 2 running, 1 stopped, 3 failed; best 25.0x at 1.23 %; hypervolume 0.1235; "
        "1:15 elapsed, 1:02:05 left"
    )
    assert replace(STATUS, forecast="later more").line() == f"{STATUS.line()}; later more"
    early = Status(10, 0.0, 0, 1, 0, 0, None, None, 0.0, [], 0.4, None)
    assert early.line() == (
        "0/10 trials done, 1 running, 0 stopped, 0 failed; best none yet; hypervolume 0.0000; 0:00 elapsed, - left"
    )
    assert replace(early, budget=None).line().startswith("0 trials done, 1 running")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0:00"), (9.6, "0:10"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90_061, "25:01:01")],
)
def test_clock(seconds: float | None, text: str) -> None:
    assert format_clock(seconds) == text


def test_without_a_terminal_a_line_now_and_then(passing: Clock) -> None:
    on = make_console()
    with SearchConsole(on) as shown:
        for _ in range(10):  # ten updates, two and a half times as long as a line lasts
            passing.now += LINE_EVERY / 4
            shown.show_status(STATUS)
    assert printed(on) == f"{STATUS.line()}\n" * 2


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(passing: Clock, terminal: bool) -> None:
    on = make_console(terminal)
    members = find_front([ended(0, (0.5, 1.0))])
    with SearchConsole(on, quiet=True) as shown:
        shown.say("hello")
        passing.now += 2 * LINE_EVERY
        shown.show_status(STATUS)
        shown.show_front(outcome(members, {"001": TestResult(1.0, 0.9, 1.1)}, TestResult(0.9, 0.8, 1.0)))
    assert printed(on) == ""


def test_lines_are_printed_without_markup(passing: Clock) -> None:
    on = make_console()
    SearchConsole(on).say("/runs/[bold]mine: " + 200 * "x")
    assert printed(on) == "/runs/[bold]mine: " + 200 * "x" + "\n"


def test_nothing_that_is_printed_acts_on_a_terminal(passing: Clock) -> None:
    on = make_console()
    evil = "\x1b[2J\u202e[red]:smile:"
    SearchConsole(on).say(evil)
    members = [replace(member, id=evil) for member in find_front([ended(0, (0.5, 1.0))])]
    tested = {evil: TestResult(1.0, 0.9, 1.1)}
    SearchConsole(on).show_front(outcome(members, tested, TestResult(0.9, 0.8, 1.0)))
    assert printed(on).count(r"\x1b[2J\u202e[red]:smile:") == 2
    assert "\x1b" not in printed(on)


def test_a_live_table_in_a_terminal(passing: Clock) -> None:
    on = make_console(terminal=True)
    with SearchConsole(on) as shown:
        shown.show_status(STATUS)
        passing.now += 60
        shown.say("in between")
    text = printed(on)
    assert "in between" in text
    for cell in ("7/100", "25.0x at 1.23 %", "0.1235", "2:15", "1:01:05"):  # the clocks went on for a minute
        assert cell in text
    before = len(text)
    passing.now += 2 * LINE_EVERY
    shown.show_status(STATUS)  # after its end it is plain lines again
    assert printed(on)[before:].strip() == STATUS.line()


def test_nothing_to_show_yet() -> None:
    on = make_console(terminal=True)
    with SearchConsole(on):
        pass
    assert "trials" not in printed(on)


def test_time_left_never_falls_below_nothing(passing: Clock) -> None:
    on = make_console(terminal=True)
    with SearchConsole(on) as shown:
        shown.show_status(STATUS)
        passing.now += 10_000
    assert "-1" not in printed(on)
    assert "0:00" in printed(on)


def test_the_front() -> None:
    on = make_console()
    members = find_front([ended(4, (0.9, 1.0), (0.99, 1.5))])
    tested = {"001": TestResult(1.1, 0.91, 1.31), "002": TestResult(1.6, 1.37, 1.86)}
    SearchConsole(on).show_front(outcome(members, tested, TestResult(0.95, 0.78, 1.16)))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed(on).splitlines() if "│" in line]
    assert rows == [
        ["dense", "1.0x", "0", "0.86 %", "0.95 % (0.78-1.16)", ""],
        ["001", "10.0x", "0.90000", "1.00 %", "1.10 % (0.91-1.31)", "4"],
        ["002", "100.0x", "0.99000", "1.50 %", "1.60 % (1.37-1.86)", "4"],
    ]


def test_a_front_with_certificates_and_further_metrics() -> None:
    on = make_console()
    members = find_front([ended(4, (0.9, 1.0), (0.99, 1.5))])
    members[1].point.costs["val_f1"] = 0.75
    tested = {"001": TestResult(1.1, 0.91, 1.31, further={"test_f1": 0.5}), "002": TestResult(1.6, 1.37, 1.86)}
    shown = outcome(members, tested, TestResult(0.95, 0.78, 1.16, further={"test_f1": 0.875}))
    made = {"001": Certificate(0.0123, 0.3, True, None, ""), "002": Certificate(None, None, False, None, "")}
    info = replace(shown.info, dense_further={"val_f1": 0.9})
    SearchConsole(on).show_front(replace(shown, info=info, claim=Claim(0.5, 0.95), certificates=made))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed(on).splitlines() if "│" in line]
    assert [row[6:] for row in rows] == [["0.9, 0.875", ""], ["nan, 0.5", "yes, p = 0.012"], ["0.75, n/a", "-"]]


def test_sparklines() -> None:
    assert console.sparkline([]) == console.sparkline([0.0]) == ""
    assert console.sparkline([0.0, 0.5, 1.0]) == " ▄█"
    assert console.sparkline([i / 100 for i in range(101)], width=4) == "▂▄▆█"
    assert len(console.sparkline([1.0] * 1000)) == 12
