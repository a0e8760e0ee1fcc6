"""The ranges of the axes of a picture of a front, so that everything that is drawn is seen whole."""

import math
from collections.abc import Sequence

from pandas import DataFrame, Series

from tune_prune.results.published import Published
from tune_prune.results.tables import read_judged
from tune_prune.tasks.metrics import ERROR, Metric

INSET = 0.02
"""The share of an axis that markers stay away from its ends, so that they are seen whole."""

LEFT = 0.92
"""Where the axis of factors begins: a little below 1, so that a point there is seen whole."""


def factor_ticks(right: float) -> list[int]:
    """Ticks for an axis of factors up to `right`, and some beyond it, for a picture that is zoomed out."""
    return [digit * 10**power for power in range(9) for digit in (1, 2, 5) if digit * 10**power <= 4 * right]


def find_factor_range(tables: Sequence[DataFrame], published: Sequence[Published]) -> tuple[float, float]:
    """The factors in sight: those of all these tables, and of published results."""
    known = [factor for table in tables for factor in table.factor]
    return LEFT, 1.25 * max([8.0, *known, *(one.factor for one in published)])


def find_in_sight(points: DataFrame, values: tuple[float, float], metric: Metric) -> Series:
    """Which points are seen whole at the worse end of the range."""
    inset = INSET * (values[1] - values[0])
    return metric.cost(1.0) * points[metric.val] <= max(map(metric.cost, values)) - inset


def find_value_range(
    points: DataFrame, fronts: Sequence[DataFrame], limit: float, dense: float, metric: Metric
) -> tuple[float, float]:
    """The validation values in sight, ascending: all that matter to the fronts, and some way beyond the limit."""
    sign = metric.cost(1.0)
    drawn = [values for front in fronts for values in (front[metric.val], read_judged(front, metric))]
    members = [sign * value for values in drawn for value in values]
    costs = [*sign * points[metric.val], *members]
    dense = metric.cost(dense) if math.isfinite(dense) else min(costs, default=math.nan)
    feasible = sign * points[points.feasible.astype(bool)][metric.val]
    limit = metric.cost(limit) if math.isfinite(limit) else max(feasible, default=dense)
    tradeoff = limit - dense if limit - dense > 1e-6 else max(0.1, abs(dense) / 2)
    low, high = min([dense, *costs]), max([limit + 0.6 * tradeoff, *members])
    if len(points) and not members:
        high = max(high, min(costs) + tradeoff)  # else the nearest miss is out of sight
    return _pad(low, high, metric)


def find_test_range(
    tested: DataFrame, dense_test: float, published: Sequence[Published], metric: Metric
) -> tuple[float, float]:
    """The test values in sight, ascending: all of them, with their intervals."""
    ends = [tested[f"{metric.test}{end}"].dropna() for end in ("", "_low", "_high")]
    costs = [metric.cost(value) for end in ends for value in end] + [one.error for one in published]
    costs += [metric.cost(dense_test)] if math.isfinite(dense_test) else []
    low, high = min(costs, default=math.nan), max(costs, default=math.nan)
    return _pad(low - 0.15 * (high - low), high, metric)  # below the lowest stands its name


def _pad(low: float, high: float, metric: Metric) -> tuple[float, float]:
    """The ends of an axis from one cost to another, with room for the markers there; values, ascending."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return (0.0, 100.0) if metric == ERROR else (0.0, 1.0)
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    first, last = low - 0.08 * (high - low), high + 0.05 * (high - low)
    first, last = sorted((metric.value(first), metric.value(last)))
    return (max(first, -0.03 * last), last) if metric == ERROR else (first, last)  # no error is below 0
