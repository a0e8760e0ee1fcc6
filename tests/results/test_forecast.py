import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.results import forecast
from tune_prune.results.forecast import (
    FACTOR,
    GAIN,
    LEAST_FACTOR,
    LEAST_GAIN,
    MIN_TRIALS,
    check_foresight,
    make_forecast,
)
from tune_prune.results.front_tracker import Moment

DOUBLINGS = [Moment(float(n), 0.01 * math.log2(n), 0.1 * math.log2(n)) for n in range(1, 65)]
"""A search that gains 0.01 of hypervolume, and a tenth in log10 of its factor, with every doubling."""

steps = st.tuples(st.floats(0.1, 100), st.floats(0, 0.02), st.floats(0, 0.2))
histories = st.lists(steps, min_size=MIN_TRIALS, max_size=40)


def history(steps: list[tuple[float, float, float]]) -> list[Moment]:
    """Moments from what each adds to the one before."""
    found = [Moment(0.0, 1e-3, 1e-3)]
    for seconds, volume, log_factor in steps:
        last = found[-1]
        found.append(Moment(last.seconds + seconds, last.hypervolume + volume, last.log_factor + log_factor))
    return found[1:]


def test_gains_of_every_doubling_alike() -> None:
    made = make_forecast(DOUBLINGS)
    assert made is not None
    gains = [share * 0.01 / 0.06 for share in GAIN]
    assert [made.gain.low, made.gain.expected, made.gain.high] == pytest.approx(gains)
    factors = [10 ** (0.6 + share * 0.1) for share in FACTOR]
    assert [made.factor.low, made.factor.expected, made.factor.high] == pytest.approx(factors)


def test_a_search_that_gained_nothing_may_still_gain() -> None:
    made = make_forecast([Moment(float(n), 0.2, 1.0) for n in range(1, MIN_TRIALS + 1)])
    assert made is not None
    assert made.gain.expected == pytest.approx(GAIN[1] * LEAST_GAIN)
    assert made.factor.high == pytest.approx(10 ** (1 + FACTOR[2] * LEAST_FACTOR))


@given(histories)
def test_bands_are_in_order_and_nothing_is_lost(steps: list[tuple[float, float, float]]) -> None:
    made, now = make_forecast(history(steps)), history(steps)[-1]
    assert made is not None
    assert 0 <= made.gain.low <= made.gain.expected <= made.gain.high
    present = 10**now.log_factor * (1 - 1e-9)
    assert present <= made.factor.low <= made.factor.expected <= made.factor.high


@given(histories, st.sampled_from([0.5, 4.0, 1024.0]))
def test_the_unit_of_time_does_not_matter(steps: list[tuple[float, float, float]], unit: float) -> None:
    scaled = [(seconds * unit, volume, log_factor) for seconds, volume, log_factor in steps]
    assert make_forecast(history(scaled)) == make_forecast(history(steps))


def test_nothing_is_forecast_before_something_is_seen() -> None:
    assert make_forecast(DOUBLINGS[: MIN_TRIALS - 1]) is None
    assert make_forecast(DOUBLINGS[:MIN_TRIALS]) is not None
    assert make_forecast([Moment(float(n)) for n in range(1, 65)]) is None


def test_a_budget_in_which_nothing_is_seen() -> None:
    check_foresight(MIN_TRIALS + 1, "a --budget of 17 trials")
    said = fault(lambda: check_foresight(MIN_TRIALS, "a --budget of 16 trials"))
    assert said == (
        "--stop-when sees nothing in a --budget of 16 trials: nothing is forecast before 16 trials have ended; "
        "give more, or leave it out"
    )


def test_in_words() -> None:
    made = forecast.Forecast(forecast.Band(108.0, 112.04, 130.96), forecast.Band(0.0, 0.031, 0.052))
    assert made.describe() == (
        "after as much training again: 112.0x (108.0x to 131.0x), hypervolume +3.1 % (+0.0 to +5.2 %)"
    )
