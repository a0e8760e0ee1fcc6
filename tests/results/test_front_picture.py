import math

import pytest
from pandas import DataFrame

from tune_prune.results.front_picture import describe_front, factor_marks
from tune_prune.tasks.metrics import Metric

POINTS = DataFrame(
    {
        "factor": [2.0, 10.0, 5.0, 100.0, math.inf, 3.0],
        "val_error": [1.1, 1.4, 1.2, 9.0, 1.0, math.nan],
        "feasible": [True, True, True, False, False, False],
        "state": ["complete", "complete", "stopped", "failed", "complete", "complete"],
    }
)
MEMBERS = POINTS[:2].assign(test_error=[1.2, math.nan], test_error_low=[1.0, math.nan], test_error_high=[1.5, math.nan])


def test_every_point_with_a_place_is_in_one_series() -> None:
    series = describe_front(POINTS, MEMBERS, 2.0, 1.0).series
    assert {one.kind: one.rounds.factor.tolist() for one in series} == {
        "within": [2.0, 10.0],
        "stopped": [5.0],
        "beyond": [100.0],
    }
    assert [one.hidden for one in series] == [0, 0, 1]
    assert describe_front(POINTS[:0], MEMBERS[:0], 2.0, 1.0).series == []


def test_the_front_and_its_test_errors() -> None:
    picture = describe_front(POINTS, MEMBERS, 2.0, 1.0, 1.3)
    assert picture.line == ([1.0, 2.0, 10.0], [1.1, 1.1, 1.4])
    assert picture.tested[["test_error", "down", "up"]].to_numpy().tolist() == [pytest.approx([1.2, 0.2, 0.3])]
    assert [(level.label, level.note) for level in picture.levels] == [
        ("dense 1.00 %", "(test 1.30 %)"),
        ("limit 2.00 %", ""),
    ]
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
    assert max(mark for mark in picture.marks if mark <= picture.factors[1]) == 10
    assert factor_marks(30.0) == [1, 2, 5, 10, 20, 50, 100]


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
    assert [one.hidden for one in higher.series] == [one.hidden for one in lower.series]
    assert "round below the limit" in [one.name for one in higher.series]
