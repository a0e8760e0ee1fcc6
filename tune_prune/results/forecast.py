"""Forecasts a search: what its front will be after as much training again.

What a search gains shrinks from one doubling of its training to the next, and does so alike on different networks: the
mean gain of the last two doublings, times quantiles that were measured on other searches (experiments/forecast), is the
forecast and the band around it. That is a power law of the training whose exponent the run itself decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tune_prune.common.errors import UserError
from tune_prune.results.front_tracker import Moment

MIN_TRIALS = 16
"""The trials that must have ended before anything is forecast."""

GAIN = (0.0, 0.35, 0.73)
"""The 10 %, 50 % and 90 % quantiles of the gain of hypervolume, as multiples of the mean gain of two doublings."""

LEAST_GAIN = 0.01
"""The mean gain is taken as at least this share of the hypervolume: a search that gained nothing may still gain."""

FACTOR = (0.0, 0.12, 1.31)
"""The same quantiles of the gain of log10(factor) of the most compressed feasible point."""

LEAST_FACTOR = 0.05
"""The least mean gain of log10(factor)."""


@dataclass(frozen=True)
class Band:
    """What is expected, between the ends of an 80 % band."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """The front after as much training again: its most compressed factor, and the gain of hypervolume as a share."""

    factor: Band
    gain: Band

    def describe(self) -> str:
        """The forecast in words."""
        factor, gain = self.factor, self.gain
        return (
            f"after as much training again: {factor.expected:.1f}x ({factor.low:.1f}x to {factor.high:.1f}x), "
            f"hypervolume {100 * gain.expected:+.1f} % ({100 * gain.low:+.1f} to {100 * gain.high:+.1f} %)"
        )


def check_foresight(trials: float, budget: str) -> None:
    """Raises a `UserError` where a search of so many trials ends before anything is forecast; `budget` names them."""
    if trials <= MIN_TRIALS:
        seen = f"nothing is forecast before {MIN_TRIALS} trials have ended"
        raise UserError(f"--stop-when sees nothing in {budget}: {seen}; give more, or leave it out")


def make_forecast(history: Sequence[Moment]) -> Forecast | None:
    """The forecast of a search with this history, a moment for each ended trial.

    None before `MIN_TRIALS` have ended, and where none of them has a feasible point: nothing is seen there yet.
    """
    if len(history) < MIN_TRIALS or history[-1].hypervolume <= 0:
        return None
    now, before = history[-1], find_moment(history, history[-1].seconds / 4)
    gain = max((now.hypervolume - before.hypervolume) / 2, LEAST_GAIN * now.hypervolume)
    growth = max((now.log_factor - before.log_factor) / 2, LEAST_FACTOR)
    factor = Band(*(10 ** (now.log_factor + share * growth) for share in FACTOR))
    return Forecast(factor, Band(*(share * gain / now.hypervolume for share in GAIN)))


def find_moment(history: Sequence[Moment], seconds: float) -> Moment:
    """The last moment not after so many seconds."""
    return next((moment for moment in reversed(history) if moment.seconds <= seconds), Moment())
