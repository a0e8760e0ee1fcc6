"""The content of a picture of a front, for matplotlib and for plotly: series, levels, marks, and ranges of axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from pandas import DataFrame, Series

from tune_prune.results import palette, pareto
from tune_prune.results.axis_ranges import (
    INSET,
    factor_ticks,
    find_factor_range,
    find_in_sight,
    find_test_range,
    find_value_range,
)
from tune_prune.results.published import Published
from tune_prune.results.tables import read_judged
from tune_prune.tasks.metrics import ERROR, Metric

FACTOR_TITLE = "times fewer weights"


@dataclass(frozen=True)
class RoundSeries:
    """Rounds that are drawn alike, at `x` and `y`; `rounds` as points.csv.

    Rounds of the kind `far` have no place within the axes: they are drawn at the edge that they are beyond.
    """

    kind: str
    name: str
    colour: str
    opacity: float
    rounds: DataFrame
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Level:
    """A line across at a value of the metric."""

    name: str
    value: float
    metric: Metric = ERROR

    @property
    def label(self) -> str:
        """The name and the value."""
        return f"{self.name} {self.metric.format(self.value)}"


class Mark(NamedTuple):
    """A member of the front that is named in the picture: its id, and what it is called."""

    id: str
    name: str


@dataclass(frozen=True)
class FrontPicture:
    """What to draw: the metric over factors, on a logarithmic axis; on validation data above, on test data below.

    `members` are those of the front that have a place in the picture, as pareto.csv; `line` holds the factors and the
    metrics of the steps through them, from factor 1 on; `marks` names some of them. `tested` are members with a test
    result, whose interval, where there is one, reaches `down` below it and `up` above it. `factors` are the factors in
    sight, the same in both parts; `values` and `test_values` the values in sight, and `levels` and `test_levels` the
    lines across, of each part.
    """

    series: Sequence[RoundSeries]
    members: DataFrame
    line: tuple[Sequence[float], Sequence[float]]
    marks: Sequence[Mark]
    tested: DataFrame
    levels: Sequence[Level]
    test_levels: Sequence[Level]
    factors: tuple[float, float]
    values: tuple[float, float]
    test_values: tuple[float, float]
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
        return f"front, test {self.metric.name}" + (", 95 % interval" if interval else "")

    @property
    def ticks(self) -> list[int]:
        """The ticks of the axis of factors."""
        return factor_ticks(self.factors[1])

    @property
    def test_reach(self) -> Series:
        """Where the interval of each tested member ends on its better side, below which its name stands."""
        tests, lower = self.tested[self.metric.test], self.metric.better == "lower"
        return tests - self.tested.down.fillna(0) if lower else tests + self.tested.up.fillna(0)

    def find_side(self, factor: float) -> Literal["left", "center", "right"]:
        """The end or the middle of a name that stands at a factor, so that it stays within the axis."""
        share = math.log(factor / self.factors[0]) / math.log(self.factors[1] / self.factors[0])
        return "left" if share < 0.2 else "right" if share > 0.8 else "center"


def describe_front(
    points: DataFrame,
    members: DataFrame,
    limit: float,
    dense: float,
    dense_test: float = math.nan,
    metric: Metric = ERROR,
    *,
    published: Sequence[Published] = (),
    others: Sequence[DataFrame] = (),
) -> FrontPicture:
    """Describes the picture of a search.

    `points` as points.csv with the `state` of each trial, `members` as pareto.csv; `limit` is the worst feasible
    validation metric, `dense` and `dense_test` are the dense model's, all NaN where unknown. `published` results and
    the fronts of `others`, as pareto.csv, are in sight as well. Points with an infinite or unknown factor or metric are
    left out. Points far beyond the limit are drawn at the edge: a few collapsed networks would flatten the front.
    """
    points, members = _drawable(points, metric), _drawable(members, metric)
    fronts = [_drawable(other, metric) for other in others]
    tested = _tested(members, metric)
    values = find_value_range(points, [members, *fronts], limit, dense, metric)
    near = points[find_in_sight(points, values, metric)]
    factors = find_factor_range([near, members, *fronts], published)
    x, y = find_steps(members, metric)
    return FrontPicture(
        series=_series(points, factors, values, metric),
        members=members,
        line=([1.0, *x], [*y[:1], *y]) if x else ([], []),
        marks=mark_members(members, metric),
        tested=tested,
        levels=_levels({"dense": dense, "limit": limit}, metric),
        test_levels=_levels({"dense": dense_test}, metric),
        factors=factors,
        values=values,
        test_values=find_test_range(tested, dense_test, published, metric),
        metric=metric,
    )


def find_steps(members: DataFrame, metric: Metric) -> tuple[list[float], list[float]]:
    """Factors and metrics of the members that no other dominates in these two alone."""
    costs = metric.cost(1.0) * read_judged(members, metric)
    steps = members.iloc[pareto.front([*zip(members.compression.astype(float), costs, strict=True)])]
    return steps.factor.tolist(), read_judged(steps, metric).tolist()


def mark_members(members: DataFrame, metric: Metric) -> list[Mark]:
    """Names the knee of a front, and its best member, the most compressed one."""
    members = _drawable(members, metric)
    if not len(members):
        return []
    costs = metric.cost(1.0) * read_judged(members, metric)
    knee = pareto.knee([*zip(members.compression.astype(float), costs, strict=True)])
    names = {knee: "knee", len(members) - 1: "best"}
    return [Mark(str(members.id.iloc[index]), name) for index, name in names.items()]


def _drawable(table: DataFrame, metric: Metric) -> DataFrame:
    factor, value = table.factor.to_numpy(dtype=float), table[metric.val].to_numpy(dtype=float)
    drawable: DataFrame = table[np.isfinite(factor) & (factor > 0) & np.isfinite(value)]
    return drawable


def _series(
    points: DataFrame, factors: tuple[float, float], values: tuple[float, float], metric: Metric
) -> list[RoundSeries]:
    """The rounds within the limit, those of stopped trials, those beyond the limit, and far beyond; none is empty."""
    side = "above" if metric.better == "lower" else "below"
    within, stopped, near = (
        points.feasible.astype(bool),
        points.state == "stopped",
        find_in_sight(points, values, metric),
    )
    kinds: list[tuple[str, str, str, float, Series]] = [
        ("within", "round within the limit", palette.BLUE, 0.4, near & within & ~stopped),
        ("stopped", "round of a trial that was stopped", palette.YELLOW, 0.9, near & within & stopped),
        ("beyond", f"round {side} the limit", palette.GREY, 0.8, near & ~within),
        ("far", f"far {side} the limit, drawn at the edge", palette.GREY, 0.8, ~near),
    ]
    # markers at the edge are seen whole, a little within it
    log_left, log_right = (math.log(end) for end in factors)
    right, inset = math.exp(log_right - INSET * (log_right - log_left)), INSET * (values[1] - values[0])
    found = []
    for kind, name, colour, opacity, chosen in kinds:
        rounds = points[chosen]
        x, y = rounds.factor.to_numpy(dtype=float), rounds[metric.val].to_numpy(dtype=float)
        if kind == "far":
            x, y = np.minimum(x, right), np.clip(y, values[0] + inset, values[1] - inset)
        found.append(RoundSeries(kind, name, colour, opacity, rounds, x.tolist(), y.tolist()))
    return [one for one in found if len(one.rounds)]


def _tested(members: DataFrame, metric: Metric) -> DataFrame:
    test, low, high = metric.test, f"{metric.test}_low", f"{metric.test}_high"
    if test not in members:
        members = members[:0].assign(**{test: [], low: [], high: []})
    tested = members[members[test].notna()]
    down, up = tested[test] - tested[low], tested[high] - tested[test]
    return tested.copy().assign(down=down, up=up)  # copied: pandas warns of tables made of many parts


def _levels(found: Mapping[str, float], metric: Metric) -> list[Level]:
    return [Level(name, value, metric) for name, value in found.items() if math.isfinite(value)]
