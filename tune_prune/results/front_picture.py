"""The content of a picture of a front, for matplotlib and for plotly: series, levels, and ranges of both axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, Series

from tune_prune.results import palette
from tune_prune.results.tables import read_judged
from tune_prune.tasks.metrics import ERROR, Metric

FACTOR_TITLE = "times fewer weights"
LEFT = 0.92
"""Where the axis of factors begins: a little below 1, so that a point there is seen whole."""


@dataclass(frozen=True)
class RoundSeries:
    """Rounds that are drawn alike; `rounds` as points.csv. `hidden` of them lie beyond the range of the metric."""

    kind: str
    name: str
    colour: str
    opacity: float
    rounds: DataFrame
    hidden: int


@dataclass(frozen=True)
class Level:
    """A line across at a value of the metric; `note` is added to its label."""

    name: str
    value: float
    note: str = ""
    metric: Metric = ERROR

    @property
    def label(self) -> str:
        """The name and the value, without the note."""
        return f"{self.name} {self.metric.format(self.value)}"


@dataclass(frozen=True)
class FrontPicture:
    """What to draw: the metric over factors, the factors on a logarithmic axis.

    `members` are those of the front that have a place in the picture, as pareto.csv; `line` holds the factors and the
    metrics of the steps through them, from factor 1 on; `tested` are members with a test result, whose interval, where
    there is one, reaches `down` below it and `up` above it. `factors` and `values` are the ranges in sight.
    """

    series: Sequence[RoundSeries]
    members: DataFrame
    line: tuple[Sequence[float], Sequence[float]]
    tested: DataFrame
    levels: Sequence[Level]
    factors: tuple[float, float]
    values: tuple[float, float]
    metric: Metric = ERROR

    @property
    def front_name(self) -> str:
        """What the legend calls the front."""
        estimated = self.heights.ne(self.members[self.metric.val]).any()
        return f"front, {'estimated' if estimated else 'validation'} {self.metric.name}"

    @property
    def heights(self) -> Series:
        """The value at which each member is drawn: its estimate, by which the front ascends, where there is one."""
        return read_judged(self.members, self.metric)

    @property
    def test_name(self) -> str:
        """What the legend calls the test results."""
        interval = self.tested.up.notna().any()
        return f"its test {self.metric.name}" + (", 95 % interval" if interval else "")

    @property
    def marks(self) -> list[int]:
        """The marks of the axis of factors."""
        return factor_marks(self.factors[1])


def describe_front(
    points: DataFrame,
    members: DataFrame,
    limit: float,
    dense: float,
    dense_test: float = math.nan,
    metric: Metric = ERROR,
) -> FrontPicture:
    """Describes the picture of a search.

    `points` as points.csv with the `state` of each trial, `members` as pareto.csv; `limit` is the worst feasible
    validation metric, `dense` and `dense_test` are the dense model's, all NaN where unknown. Points with an infinite or
    unknown factor or metric are left out. Points far beyond the limit are out of sight: a few collapsed networks would
    flatten the front.
    """
    points, members = _drawable(points, metric), _drawable(members, metric)
    tested = _tested(members, metric)
    values = _value_range(points, members, tested, limit, dense, metric)
    x, y = members.factor.tolist(), read_judged(members, metric).tolist()
    return FrontPicture(
        series=_series(points, values, metric),
        members=members,
        line=([1.0, *x], [y[0], *y]) if x else ([], []),
        tested=tested,
        levels=_levels(limit, dense, dense_test, metric),
        factors=_factor_range(points, members, values, metric),
        values=values,
        metric=metric,
    )


def factor_marks(right: float) -> list[int]:
    """Marks for an axis of factors up to `right`, and some beyond it, for a picture that is zoomed out."""
    return [digit * 10**power for power in range(9) for digit in (1, 2, 5) if digit * 10**power <= 4 * right]


def _drawable(table: DataFrame, metric: Metric) -> DataFrame:
    factor, value = table.factor.to_numpy(dtype=float), table[metric.val].to_numpy(dtype=float)
    drawable: DataFrame = table[np.isfinite(factor) & (factor > 0) & np.isfinite(value)]
    return drawable


def _in_sight(points: DataFrame, values: tuple[float, float], metric: Metric) -> Series:
    """Which points are not beyond the worse end of the range."""
    found: Series = points[metric.val] <= values[1] if metric.better == "lower" else points[metric.val] >= values[0]
    return found


def _series(points: DataFrame, values: tuple[float, float], metric: Metric) -> list[RoundSeries]:
    """The rounds within the limit, those of stopped trials, and those beyond the limit; no empty series."""
    side = "above" if metric.better == "lower" else "below"
    within, stopped = points.feasible.astype(bool), points.state == "stopped"
    kinds: list[tuple[str, str, str, float, Series]] = [
        ("within", "round within the limit", palette.BLUE, 0.4, within & ~stopped),
        ("stopped", "round of a trial that was stopped", palette.YELLOW, 0.9, within & stopped),
        ("beyond", f"round {side} the limit", palette.GREY, 0.8, ~within),
    ]
    found = [(kind, name, colour, opacity, points[chosen]) for kind, name, colour, opacity, chosen in kinds]
    return [RoundSeries(*one, hidden=int((~_in_sight(one[-1], values, metric)).sum())) for one in found if len(one[-1])]


def _tested(members: DataFrame, metric: Metric) -> DataFrame:
    test, low, high = metric.test, f"{metric.test}_low", f"{metric.test}_high"
    if test not in members:
        members = members[:0].assign(**{test: [], low: [], high: []})
    tested = members[members[test].notna()]
    down, up = tested[test] - tested[low], tested[high] - tested[test]
    return tested.copy().assign(down=down, up=up)  # copied: pandas warns of tables made of many parts


def _levels(limit: float, dense: float, dense_test: float, metric: Metric) -> list[Level]:
    note = f"(test {metric.format(dense_test)})" if math.isfinite(dense_test) else ""
    levels = Level("dense", dense, note, metric), Level("limit", limit, metric=metric)
    return [level for level in levels if math.isfinite(level.value)]


def _value_range(
    points: DataFrame, members: DataFrame, tested: DataFrame, limit: float, dense: float, metric: Metric
) -> tuple[float, float]:
    """The values in sight, ascending: all that matter to the front, and some way beyond the limit."""
    sign = metric.cost(1.0)
    costs = [*sign * points[metric.val], *sign * members[metric.val]]
    dense = metric.cost(dense) if math.isfinite(dense) else min(costs, default=math.nan)
    feasible = sign * points[points.feasible.astype(bool)][metric.val]
    limit = metric.cost(limit) if math.isfinite(limit) else max(feasible, default=dense)
    tradeoff = limit - dense if limit - dense > 1e-6 else max(0.1, abs(dense) / 2)
    ends = [sign * tested[f"{metric.test}{end}"].dropna() for end in ("", "_low", "_high")]
    if metric == ERROR:
        ends = ends[1:]  # the intervals hold the errors
    tests = [cost for end in ends for cost in end]
    low = min([dense, *costs, *tests])
    high = max([limit + 0.6 * tradeoff, *tests])
    if len(points) and not len(members):
        high = max(high, min(costs) + tradeoff)  # else the nearest miss is out of sight
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return (0.0, 100.0) if metric == ERROR else (0.0, 1.0)
    bottom, top = low - 0.06 * (high - low), high + 0.02 * (high - low)
    if metric == ERROR:
        return max(bottom, -0.02 * high), top  # no error is below 0
    first, last = sorted((metric.value(bottom), metric.value(top)))
    return first, last


def _factor_range(
    points: DataFrame, members: DataFrame, values: tuple[float, float], metric: Metric
) -> tuple[float, float]:
    """The factors in sight: those of all points whose metric is."""
    return LEFT, 1.25 * max([8.0, *points[_in_sight(points, values, metric)].factor, *members.factor])
