import math

import pytest
from pandas import DataFrame

from tune_prune.results.axis_ranges import factor_ticks
from tune_prune.results.front_picture import describe_front
from tune_prune.results.published import Published
from tune_prune.tasks.metrics import Metric

POINTS = DataFrame(
    {
        "factor": [2.0, 10.0, 5.0, 100.0, math.inf, 3.0],
        "val_error": [1.1, 1.4, 1.2, 9.0, 1.0, math.nan],
        "feasible": [True, True, True, False, False, False],
        "state": ["complete", "complete", "stopped", "failed", "complete", "complete"],
    }
)
MEMBERS = POINTS[:2].assign(
    id=["001", "002"], compression=[0.5, 0.9], test_error=[1.2, math.nan], test_error_low=[1.0, math.nan],
    test_error_high=[1.5, math.nan],
)  # fmt: skip


def test_every_point_with_a_place_is_in_one_series() -> None:
    series = describe_front(POINTS, MEMBERS, 2.0, 1.0).series
    assert {one.kind: one.rounds.factor.tolist() for one in series} == {
        "within": [2.0, 10.0],
        "stopped": [5.0],
        "far": [100.0],
    }
    assert describe_front(POINTS[:0], MEMBERS[:0], 2.0, 1.0).series == []


def test_the_front_and_its_test_errors() -> None:
    picture = describe_front(POINTS, MEMBERS, 2.0, 1.0, 1.3)
    assert picture.line == ([1.0, 2.0, 10.0], [1.1, 1.1, 1.4])
    assert picture.tested[["test_error", "down", "up"]].to_numpy().tolist() == [pytest.approx([1.2, 0.2, 0.3])]
    assert [level.label for level in picture.levels] == ["dense 1.00 %", "limit 2.00 %"]
    assert [level.label for level in picture.test_levels] == ["dense 1.30 %"]
    assert picture.test_reach.tolist() == [1.0]
    untested = describe_front(POINTS, MEMBERS.drop(columns=["test_error"]), 2.0, 1.0)
    assert len(untested.tested) == 0


def test_the_front_is_drawn_at_its_estimates() -> None:
    measured = describe_front(POINTS, MEMBERS, 2.0, 1.0)
    assert (measured.front_name, measured.heights.tolist()) == ("front, validation error", [1.1, 1.4])
    members = MEMBERS.assign(val_error_estimate=["1.25", None])
    picture = describe_front(POINTS, members, 2.0, 1.0)
    assert (picture.front_name, picture.heights.tolist()) == ("front, estimated error", [1.25, 1.4])
    assert picture.line == ([1.0, 2.0, 10.0], [1.25, 1.25, 1.4])


def test_the_ranges_hold_the_front_and_end_a_little_above_the_limit() -> None:
    picture = describe_front(POINTS, MEMBERS, 2.0, 1.0)
    assert picture.values[0] < 1.0
    assert 2.0 < picture.values[1] < 3.0
    assert picture.factors == (pytest.approx(0.92), pytest.approx(12.5))
    assert max(tick for tick in picture.ticks if tick <= picture.factors[1]) == 10
    assert factor_ticks(30.0) == [1, 2, 5, 10, 20, 50, 100]


@pytest.mark.parametrize("feasible", [True, False])
def test_without_known_levels_the_points_are_in_sight(feasible: bool) -> None:
    points = POINTS if feasible else POINTS.assign(feasible=False)
    picture = describe_front(points, MEMBERS[: 2 * feasible], math.nan, math.nan)
    assert picture.levels == []
    assert picture.values[0] < 1.1 < picture.values[1] < 9.0
    assert describe_front(POINTS[:0], MEMBERS[:0], math.nan, math.nan).values == (0.0, 100.0)


def test_a_tradeoff_of_nothing_still_has_a_range() -> None:
    bottom, top = describe_front(POINTS, MEMBERS, 1.0, 1.0).values
    assert bottom < 1.0 < 1.1 < top


def test_a_metric_of_which_higher_is_better_is_drawn_as_its_negative_upside_down() -> None:
    metric = Metric("closeness", "higher")
    turned = {"val_error": "val_closeness", "test_error": "test_closeness"}
    turned |= {"test_error_low": "test_closeness_high", "test_error_high": "test_closeness_low"}

    def turn(table: DataFrame) -> DataFrame:
        return table.assign(**{name: -table[name] for name in turned if name in table}).rename(columns=turned)

    lower = describe_front(
        *(one.rename(columns=lambda name: name.replace("error", "rmse")) for one in (POINTS, MEMBERS)),
        2.0,
        1.0,
        metric=Metric("rmse"),
    )
    higher = describe_front(turn(POINTS), turn(MEMBERS), -2.0, -1.0, metric=metric)
    assert higher.values == tuple(-end for end in reversed(lower.values))
    assert higher.factors == lower.factors
    assert higher.test_values == pytest.approx(tuple(-end for end in reversed(lower.test_values)))
    assert [one.y for one in higher.series] == [[-y for y in one.y] for one in lower.series]
    assert "far below the limit, drawn at the edge" in [one.name for one in higher.series]


def test_every_round_is_drawn_within_the_axes() -> None:
    collapsed = POINTS.assign(factor=[2.0, 10.0, 5.0, 1e6, 7.0, 3.0], val_error=[1.1, 1.4, 1.2, 90.0, 2.6, 2.8])
    picture = describe_front(collapsed, MEMBERS, 2.0, 1.0)
    (left, right), (bottom, top) = picture.factors, picture.values
    drawn = [point for one in picture.series for point in zip(one.x, one.y, strict=True)]
    assert len(drawn) == len(collapsed)
    assert all(left < x < right and bottom < y < top for x, y in drawn)
    assert right < 20  # a collapsed network does not move the front aside
    (far,) = (one for one in picture.series if one.kind == "far")
    assert far.rounds.val_error.tolist() == [90.0, 2.8]


def test_what_a_front_is_compared_with_is_in_sight() -> None:
    other = MEMBERS.assign(factor=[20.0, 60.0], val_error=[1.0, 3.5])
    picture = describe_front(POINTS, MEMBERS, 2.0, 1.0, published=[Published("Han 2015", 1.0, 2.5)], others=[other])
    assert picture.factors[1] > 100
    assert picture.values[1] > 3.5
    assert picture.test_values[0] < 1.0
    assert picture.test_values[1] > 2.5


def test_knee_and_best_are_marked() -> None:
    rows = {"compression": [0.5, 0.9, 0.99], "factor": [2.0, 10.0, 100.0], "val_error": [1.0, 1.05, 2.0]}
    members = DataFrame({"id": ["001", "002", "003"], **rows})
    assert describe_front(POINTS, members, 2.0, 1.0).marks == [("002", "knee"), ("003", "best")]
    assert describe_front(POINTS, members[:1], 2.0, 1.0).marks == [("001", "best")]
    assert describe_front(POINTS, members[:0], 2.0, 1.0).marks == []


def test_steps_go_through_those_alone_that_are_best_in_factor_and_metric() -> None:
    rows = {"compression": [0.5, 0.8, 0.9], "factor": [2.0, 5.0, 10.0], "val_error": [1.0, 1.9, 1.4]}
    picture = describe_front(POINTS, DataFrame({"id": ["001", "002", "003"], **rows}), 2.0, 1.0)
    assert picture.line == ([1.0, 2.0, 10.0], [1.0, 1.0, 1.4])  # the second has fewer multiply-adds
    assert len(picture.members) == 3


@pytest.mark.parametrize(("factor", "side"), [(1.0, "left"), (3.5, "center"), (12.0, "right")])
def test_a_name_near_the_end_of_the_axis_stays_within_it(factor: float, side: str) -> None:
    assert describe_front(POINTS, MEMBERS, 2.0, 1.0).find_side(factor) == side
