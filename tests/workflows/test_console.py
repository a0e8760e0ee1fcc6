import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text
from toys import ended

from tune_prune.pruning.coverage import Coverage
from tune_prune.results.certificate import Certificate, Claim
from tune_prune.results.confidence import Confirmation
from tune_prune.results.front import Member, TestResult, find_front
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.run_info import RunInfo
from tune_prune.results.trial_params import TrialParams
from tune_prune.workflows import console
from tune_prune.workflows.console import LINE_EVERY, OTHER_LINES, SearchConsole
from tune_prune.workflows.live_view import Phase, draw_phase, draw_status
from tune_prune.workflows.status import RunningTrial, Status, format_clock, select_params, sparkline

RATIOS = {"ratio/1": 0.31, "ratio/4": 0.8312, "ratio/8": 0.954, "ratio/10": 0.72, "ratio/12": 0.5}
RUNNING = (
    RunningTrial(8, 2, 3, "12.2x at 0.71 %", RATIOS | {"pruner": "mag", "lr": 0.05341}),
    RunningTrial(9, 4, 12, "60.1x at 0.97 %", RATIOS | {"pruner": "mag"}, refines=3),
)
STATUS = Status(
    budget=100,
    share=0.25,
    done=7,
    running=RUNNING,
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
        "search: 7/100 trials done, 2 running, 1 stopped, 3 failed; best 25.0x at 1.23 %; "
        "hypervolume 0.1235 (share of the possible area); 1:15 elapsed, 1:02:05 left"
    )
    assert replace(STATUS, forecast="later more").line() == f"{STATUS.line()}; later more"
    early = Status(10, 0.0, 0, RUNNING[:1], 0, 0, None, None, 0.0, [], 0.4, None, phase="initial trials")
    assert early.line() == (
        "initial trials: 0/10 trials done, 1 running, 0 stopped, 0 failed; best none yet; "
        "hypervolume 0.0000 (share of the possible area); 0:00 elapsed, - left"
    )
    assert replace(early, budget=None).line().startswith("initial trials: 0 trials done, 1 running")


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
    # the clocks went on for a minute
    for cell in ("7/100", "25.0x at 1.23 %", "0.1235", "2:15", "1:01:05", "round 2/3, 12.2x at 0.71 %"):
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
    assert [row[5:7] for row in rows] == [["0.9, 0.875", ""], ["nan, 0.5", "yes, p = 0.012"], ["0.75, n/a", "-"]]


def test_sparklines() -> None:
    assert sparkline([]) == sparkline([0.0]) == ""
    assert sparkline([0.0, 0.5, 1.0]) == " ▄█"
    assert sparkline([i / 100 for i in range(101)], width=4) == "▂▄▆█"
    assert len(sparkline([1.0] * 1000)) == 12


WIDTHS = (60, 80, 140)
MANY = {f"ratio/layer{i}.{j}.conv{c}": 0.1 * i for i in (1, 2, 3) for j in range(3) for c in (1, 2)}
FORECAST = "after as much training again: 60.1x (56.3x to 86.9x), hypervolume +3.0 % (+0.4 to +7.0 %)"


def drawn(lines: list[Text | Table], width: int) -> list[str]:
    """The lines as a terminal of this width shows them."""
    on = Console(file=io.StringIO(), width=width)
    for line in lines:
        on.print(line)
    return printed(on).splitlines()


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_none_is_cut(width: int) -> None:
    status = replace(
        STATUS, running=(*RUNNING, RunningTrial(10, 1, 3, "", MANY)), forecast=FORECAST, phase="refinement",
        best="1.23 % validation error", history=[i / 100 for i in range(100)],
    )  # fmt: skip
    lines = drawn(draw_status(status, 3.0, width, 4), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert lines[0].startswith("refinement ")
    assert lines[0].endswith("1:18 elapsed, 1:02:02 left")
    assert lines[1].endswith("  7/100 trials")
    text = " ".join(" ".join(lines).split())
    for part in ("25.0x at 1.23 % validation error", "0.1235, share of the possible area", FORECAST, "3 failed"):
        assert part in text
    assert [line.split()[:2] for line in lines if line.startswith("trial ")] == [
        ["trial", "8"],
        ["trial", "9"],
        ["trial", "10"],
    ]
    assert ("lr 0.0534; ratios 1: 0.31, 4: 0.831, 8: 0.954, 10: 0.72, 12: 0.5" in text) == (width == 140)
    assert ("ratios 0.31 0.831 0.954 0.72 0.5" in text) == (width == 80)
    assert ("ratios 0.1 to 0.3" in text) == (width < 140)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_jumps_when_trials_end(width: int) -> None:
    changes = [replace(STATUS, running=RUNNING[:number], forecast=FORECAST * (number % 2)) for number in range(3)]
    assert len({len(drawn(draw_status(status, 0.0, width, 2), width)) for status in changes}) == 1


def test_no_more_running_trials_than_a_terminal_has_lines_for() -> None:
    on = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, force_interactive=True)
    with SearchConsole(on) as shown:
        shown.show_status(replace(STATUS, running=RUNNING * 50))
    frame = printed(on).rpartition("this machine")[2]
    assert frame.count("round ") == 24 - OTHER_LINES


def test_a_name_from_a_file_does_not_act_on_the_terminal() -> None:
    evil = RunningTrial(1, 1, 1, "", {"ratio/\x1b[2J": 0.5, "pruner": "[red]"})
    [line] = [
        line for line in drawn(draw_status(replace(STATUS, running=(evil,)), 0.0, 140, 1), 140) if "trial 1" in line
    ]
    assert r"\x1b[2J" in line
    assert "[red]" in line


@pytest.mark.parametrize("width", WIDTHS)
def test_a_phase_with_its_progress_and_the_time_that_is_left(width: int) -> None:
    phase = Phase("testing the front", 100.0, total=9)
    assert drawn(draw_phase(phase, 101.0, width), width)[0].split("  ")[0] == "testing the front 0/9"
    phase.advance()
    phase.advance()
    title, bar = drawn(draw_phase(phase, 104.0, width), width)
    assert title.startswith("testing the front 2/9 ")
    assert title.endswith("0:04 elapsed, 0:14 left")
    assert len(title) == len(bar) == width
    assert len(drawn(draw_phase(Phase("starting Ray", 0.0), 1.0, width), width)) == 1


def test_phases_are_named_in_plain_lines_without_a_terminal(passing: Clock) -> None:
    on = make_console()
    with SearchConsole(on) as shown:
        with shown.phase("measuring layers", 65) as phase:
            phase.advance()
        with shown.phase("starting Ray"):
            pass
    assert printed(on) == "measuring layers: 65\nstarting Ray\n"
    assert "\x1b" not in printed(on)


def test_a_phase_is_shown_in_a_terminal_and_gone_after_it(passing: Clock) -> None:
    on = make_console(terminal=True)
    with SearchConsole(on) as shown:
        with shown.phase("measuring layers", 65):
            shown.say("x")
        shown.show_status(STATUS)
        shown.say("y")
    _, name, after = printed(on).rpartition("measuring layers 0/65")
    assert name
    assert "7/100 trials" in after


@pytest.mark.parametrize("width", WIDTHS)
def test_a_front_with_many_columns_is_as_wide_as_the_terminal_and_nothing_is_cut(width: int) -> None:
    members = find_front([ended(4, (0.9, 1.0), (0.99, 1.5))])
    tested = {"001": TestResult(1.1, 0.91, 1.31, further={"test_f1": 0.5}), "002": TestResult(1.6, 1.37, 1.86)}
    found = outcome(members, tested, TestResult(0.95, 0.78, 1.16, further={"test_f1": 0.875}))
    made = {"001": Certificate(0.0123, 0.3, True, None, ""), "002": Certificate(None, None, False, None, "")}
    confirmed = {"001": Confirmation((1.0, 1.1, 1.2), 1.36, found.info.metric)}
    on = Console(file=io.StringIO(), width=width)
    info = replace(found.info, dense_further={"val_f1": 0.9})
    SearchConsole(on).show_front(
        replace(found, info=info, claim=Claim(0.5, 0.95), certificates=made, confirmed=confirmed)
    )
    lines = printed(on).splitlines()
    assert max(map(len, lines)) <= width
    for part in ("compression", "validation error", "test error (95 %)", "3 other seeds", "certified at 95 %",
                 "f1, validation and test", "yes, p = 0.012", "1.10 ± 0.10 %, holds"):  # fmt: skip
        assert sum(part in line for line in lines) >= 1
    assert "…" not in printed(on)
    if width == 80:  # where the number of the trial would need a table of its own
        SearchConsole(plain := Console(file=io.StringIO(), width=width)).show_front(
            outcome(members, tested, found.dense_test)
        )
        assert printed(plain).count("Front") == 1
        assert "trial" in printed(plain)
    assert sum("dense" in line for line in lines) == sum("Front" in line for line in lines)


def test_only_what_differs_between_trials_is_shown() -> None:
    params = TrialParams({"1": 0.5, "4": 0.6}, pruner="mag", groups={"conv*": 0.4}, training={"lr": 0.1, "steps": 40})
    assert select_params(params, ["ratio/1", "group/conv*", "lr"]) == {"group/conv*": 0.4, "ratio/1": 0.5, "lr": 0.1}
