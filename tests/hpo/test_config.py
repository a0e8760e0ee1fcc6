from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.hpo import config as configs
from tune_prune.hpo.config import SAMPLERS, Config, parse_duration, parse_share

# Bounds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": 0}, "--budget must be at least 1 trial, got 0"),
        ({"budget": -3}, "--budget must be at least 1 trial, got -3"),
        ({"budget": None}, "give --budget or --time-budget: nothing else says when this search ends"),
        ({"confirm": 1}, "--confirm must be at least 2: one has no spread, got 1"),
        ({"certify": 0.5}, "--certify must be above 0.5 and below 1, got 0.5"),
        ({"certify": 95.0}, "--certify must be above 0.5 and below 1, got 95.0"),
        ({"stop_when": 0.0}, "--stop-when must be above 0 and below 1, or a percentage such as 1%, got 0.0"),
        ({"stop_when": 5.0}, "--stop-when must be above 0 and below 1, or a percentage such as 1%, got 5.0"),
        (
            {"stop_when": 0.01},
            "--stop-when sees nothing in a --budget of 10 trials: nothing is forecast before 16 trials have ended; "
            "give more, or leave it out",
        ),
        ({"confirm": -2}, "--confirm must be at least 2: one has no spread, got -2"),
        ({"refine": 0.91}, "--refine must be between 0 and 0.9 of the trials, got 0.91"),
        ({"refine": -0.1}, "--refine must be between 0 and 0.9 of the trials, got -0.1"),
        ({"acc_tradeoff": -0.1}, "--acc-tradeoff must be a number from 0, of errors at most 100 points, got -0.1"),
        (
            {"acc_tradeoff": float("nan")},
            "--acc-tradeoff must be a number from 0, of errors at most 100 points, got nan",
        ),
        ({"sampler": "grid"}, "--sampler must be one of tpe, nsga2, gp, random, got grid"),
        ({"seed": -1}, "--seed must be between 0 and 4294967295, got -1"),
        ({"seed": 2**32}, "--seed must be between 0 and 4294967295, got 4294967296"),
        ({"max_failures": 1.5}, "--max-failures must be between 0 and 1 of the trials, got 1.5"),
    ],
)
def test_out_of_bounds(given: dict[str, Any], said: str) -> None:
    assert fault(lambda: Config(**{"budget": 10, "acc_tradeoff": 0.5} | given)) == said


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_may_be_named(sampler: str) -> None:
    if sampler == "gp":
        pytest.importorskip("scipy")
    assert Config(budget=1, acc_tradeoff=0.0, sampler=sampler).sampler == sampler


def test_a_sampler_whose_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "find_spec", lambda name: None)
    assert "scipy" in fault(lambda: Config(budget=1, acc_tradeoff=0.0, sampler="gp"))
    assert "pip install 'tune-prune[certify]'" in fault(lambda: Config(budget=1, certify=0.95))


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.5 %", 0.005), ("0.02", 0.02), ("1e-3", 0.001)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text, "--stop-when") == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "1%%", "one", "1,5%"])
def test_what_is_no_share(text: str) -> None:
    said = fault(lambda: parse_share(text, "--stop-when"))
    assert said == f"--stop-when must be a share such as 1% or 0.01, got {text!r}"


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1h30m15s", 5415), ("1m30", 90)),
        *(("1h1s", 3601), ("0.5h", 1800), ("1.5m", 90), (" 5s ", 5), ("0h0m1s", 1)),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "soon", "5d", "m", "1m1h", "1,5h", "inf", "nan", "1e3", "5 m"])
def test_what_is_no_duration(text: str) -> None:
    said = fault(lambda: parse_duration(text))
    assert said == f"--time-budget must be a duration such as 90s, 15m or 1h30m, got {text!r}"
