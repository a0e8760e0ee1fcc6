"""The content of a picture of a front, for matplotlib and for plotly: series, levels, and ranges of both axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, Series

from tune_prune.results import palette

FRONT_NAME = "front, validation error"
TEST_NAME = "its test error, 95 % interval"
FACTOR_TITLE, ERROR_TITLE = "times fewer weights", "error, %"
LEFT = 0.92
"""Where the axis of factors begins: a little below 1, so that a point there is seen whole."""


@dataclass(frozen=True)
class RoundSeries:
    """Rounds that are drawn alike; `rounds` as points.csv. `hidden` of them lie above the range of errors."""

    kind: str
    name: str
    colour: str
    opacity: float
    rounds: DataFrame
    hidden: int


@dataclass(frozen=True)
class Level:
    """A line across at an error in percent; `note` is added to its label."""

    name: str
    error: float
    note: str = ""

    @property
    def label(self) -> str:
        """The name and the error, without the note."""
        return f"{self.name} {self.error:.2f} %"


@dataclass(frozen=True)
class FrontPicture:
    """What to draw: errors in percent over factors, the factors on a logarithmic axis.

    `members` are those of the front that have a place in the picture, as pareto.csv; `line` holds the factors and the
    errors of the steps through them, from factor 1 on; `tested` are members with a test error, whose interval reaches
    `down` below it and `up` above it. `factors` and `errors` are the ranges in sight.
    """

    series: Sequence[RoundSeries]
    members: DataFrame
    line: tuple[Sequence[float], Sequence[float]]
    tested: DataFrame
    levels: Sequence[Level]
    factors: tuple[float, float]
    errors: tuple[float, float]

    @property
    def marks(self) -> list[int]:
        """The marks of the axis of factors."""
        return factor_marks(self.factors[1])


def describe_front(
    points: DataFrame, members: DataFrame, limit: float, dense: float, dense_test: float = math.nan
) -> FrontPicture:
    """Describes the picture of a search.

    `points` as points.csv with the `state` of each trial, `members` as pareto.csv; `limit` is the highest feasible
    validation error, `dense` and `dense_test` are the dense model's errors, all in percent and NaN where unknown.
    Points with an infinite or unknown factor or error are left out. Points far above the limit are out of sight: a few
    collapsed networks would flatten the front.
    """
    points, members = _drawable(points), _drawable(members)
    tested = _tested(members)
    errors = _error_range(points, members, tested, limit, dense)
    x, y = members.factor.tolist(), members.val_error.tolist()
    return FrontPicture(
        series=_series(points, errors[1]),
        members=members,
        line=([1.0, *x], [y[0], *y]) if x else ([], []),
        tested=tested,
        levels=_levels(limit, dense, dense_test),
        factors=_factor_range(points, members, errors[1]),
        errors=errors,
    )


def factor_marks(right: float) -> list[int]:
    """Marks for an axis of factors up to `right`, and some beyond it, for a picture that is zoomed out."""
    return [digit * 10**power for power in range(9) for digit in (1, 2, 5) if digit * 10**power <= 4 * right]


def _drawable(table: DataFrame) -> DataFrame:
    factor, error = table.factor.to_numpy(dtype=float), table.val_error.to_numpy(dtype=float)
    drawable: DataFrame = table[np.isfinite(factor) & (factor > 0) & np.isfinite(error)]
    return drawable


def _series(points: DataFrame, top: float) -> list[RoundSeries]:
    """The rounds within the limit, those of stopped trials, and those above the limit; no empty series."""
    within, stopped = points.feasible.astype(bool), points.state == "stopped"
    kinds: list[tuple[str, str, str, float, Series]] = [
        ("within", "round within the limit", palette.BLUE, 0.4, within & ~stopped),
        ("stopped", "round of a trial that was stopped", palette.YELLOW, 0.9, within & stopped),
        ("above", "round above the limit", palette.GREY, 0.8, ~within),
    ]
    found = [(kind, name, colour, opacity, points[chosen]) for kind, name, colour, opacity, chosen in kinds]
    return [RoundSeries(*one, hidden=int((one[-1].val_error > top).sum())) for one in found if len(one[-1])]


def _tested(members: DataFrame) -> DataFrame:
    if "test_error" not in members:
        members = members[:0].assign(test_error=[], test_error_low=[], test_error_high=[])
    tested = members[members.test_error.notna()]
    down, up = tested.test_error - tested.test_error_low, tested.test_error_high - tested.test_error
    return tested.copy().assign(down=down, up=up)  # copied: pandas warns of tables made of many parts


def _levels(limit: float, dense: float, dense_test: float) -> list[Level]:
    note = f"(test {dense_test:.2f} %)" if math.isfinite(dense_test) else ""
    return [level for level in (Level("dense", dense, note), Level("limit", limit)) if math.isfinite(level.error)]


def _error_range(
    points: DataFrame, members: DataFrame, tested: DataFrame, limit: float, dense: float
) -> tuple[float, float]:
    """The errors in sight: all that matter to the front, and some way above the limit."""
    errors = [*points.val_error, *members.val_error]
    dense = dense if math.isfinite(dense) else min(errors, default=math.nan)
    limit = limit if math.isfinite(limit) else max(points[points.feasible.astype(bool)].val_error, default=dense)
    tradeoff = limit - dense if limit - dense > 1e-6 else max(0.1, dense / 2)
    low = min([dense, *errors, *tested.test_error_low.dropna()])
    high = max([limit + 0.6 * tradeoff, *tested.test_error_high.dropna()])
    if len(points) and not len(members):
        high = max(high, min(errors) + tradeoff)  # else the nearest miss is out of sight
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return 0.0, 100.0
    return max(low - 0.06 * (high - low), -0.02 * high), high + 0.02 * (high - low)


def _factor_range(points: DataFrame, members: DataFrame, top: float) -> tuple[float, float]:
    """The factors in sight: those of all points whose error is."""
    return LEFT, 1.25 * max([8.0, *points[points.val_error <= top].factor, *members.factor])
