import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.results.pareto import Point, dominates, front, hypervolume, knee

# coarse values make ties and duplicates frequent, fine ones make them absent
compressions = st.sampled_from([0.0, 0.5, 0.9, 0.99]) | st.floats(0, 1)
errors = st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 100)
finite_points = st.lists(st.tuples(compressions, errors), max_size=30)
any_points = st.lists(st.tuples(compressions | st.floats(), errors | st.floats()), max_size=30)

MAX_ERROR = 2.0


def factor(times: float) -> float:
    """The compression of a factor."""
    return 1 - 1 / times


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        ((0.9, 1.0), (0.8, 2.0), True),
        ((0.9, 1.0), (0.9, 2.0), True),
        ((0.9, 1.0), (0.8, 1.0), True),
        ((0.9, 1.0), (0.9, 1.0), False),
        ((0.9, 2.0), (0.8, 1.0), False),
        ((0.8, 2.0), (0.9, 1.0), False),
    ],
)
def test_dominates(a: Point, b: Point, answer: bool) -> None:
    assert dominates(a, b) is answer


@given(any_points)
def test_front_is_what_comparing_every_pair_finds(points: list[Point]) -> None:
    finite = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]
    expected = [
        i
        for i in finite
        if not any(dominates(points[j], points[i]) or (j < i and points[j] == points[i]) for j in finite)
    ]
    assert front(points) == sorted(expected, key=lambda i: points[i])


@given(finite_points)
def test_a_front_rises_in_both(points: list[Point]) -> None:
    members = [points[i] for i in front(points)]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(members))


def test_front_of_many_points_all_on_it() -> None:
    points = [(i / 10_000, float(i)) for i in range(10_000)]
    order = list(range(10_000))
    random.Random(0).shuffle(order)
    shuffled = [points[i] for i in order]
    assert [shuffled[i] for i in front(shuffled)] == points
    assert 0 < hypervolume(shuffled, 100.0) < 1
    assert knee(shuffled) in range(10_000)


def test_hypervolume_of_nothing_and_of_everything() -> None:
    assert hypervolume([], MAX_ERROR) == 0
    assert hypervolume([(0.0, 0.0)], MAX_ERROR) == 0  # a factor of 1 has no width
    assert hypervolume([(0.9999, 0.0)], MAX_ERROR) == 1
    assert hypervolume([(1.0, -1.0)], MAX_ERROR) == 1
    assert hypervolume([(math.nan, 0.0), (0.9, math.nan), (math.inf, 0.0)], MAX_ERROR) == 0


def test_hypervolume_of_one_point_is_a_rectangle() -> None:
    assert hypervolume([(factor(10), 0.5)], MAX_ERROR) == pytest.approx(1 / 3 * 1.5 / 2)
    assert hypervolume([(factor(10), 0.5)], MAX_ERROR, max_log_factor=2.0) == pytest.approx(1 / 2 * 1.5 / 2)


def test_hypervolume_of_two_points_is_two_strips() -> None:
    points = [(factor(10), 0.5), (factor(100), 1.5)]
    assert hypervolume(points, MAX_ERROR) == pytest.approx((1 * 1.5 + 1 * 0.5) / (3 * 2))


def test_hypervolume_of_a_dominated_point_is_nothing_more() -> None:
    outer = (factor(100), 0.5)
    assert hypervolume([(factor(10), 1.0), outer, outer], MAX_ERROR) == hypervolume([outer], MAX_ERROR)


def test_a_point_above_the_greatest_error_counts_for_nothing() -> None:
    assert hypervolume([(factor(100), MAX_ERROR + 1e-9)], MAX_ERROR) == 0
    kept = (factor(10), 0.5)
    assert hypervolume([kept, (factor(100), 5.0)], MAX_ERROR) == hypervolume([kept], MAX_ERROR)


@given(finite_points, st.tuples(compressions, errors))
def test_a_further_point_never_lessens_the_hypervolume(points: list[Point], point: Point) -> None:
    before, after = hypervolume(points, MAX_ERROR), hypervolume([*points, point], MAX_ERROR)
    assert 0 <= before <= after + 1e-12 <= 1 + 1e-12


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=8),
    st.randoms(use_true_random=False),
)
def test_hypervolume_is_the_count_of_dominated_cells(corners: list[tuple[int, int]], rng: random.Random) -> None:
    # Corners on a grid of 10 by 10 cells, some beyond it, dominate whole cells.
    points = [(1 - 10 ** (-3 * x / 10), MAX_ERROR * y / 10) for x, y in corners]
    rng.shuffle(points)
    cells = sum(any(x < cx and y >= cy for cx, cy in corners) for x in range(10) for y in range(10))
    assert hypervolume(points, MAX_ERROR) == pytest.approx(cells / 100)


@pytest.mark.parametrize(("max_error", "max_log_factor"), [(0.0, 3.0), (-1.0, 3.0), (2.0, 0.0), (math.nan, 3.0)])
def test_a_rectangle_without_area_is_refused(max_error: float, max_log_factor: float) -> None:
    with pytest.raises(ValueError, match="must have an area"):
        hypervolume([], max_error, max_log_factor)


def test_knee_of_a_clear_bend() -> None:
    # scaled: (0, 0), (1/3, 0.01), (2/3, 0.05), (1, 1): the third is farthest below the diagonal
    points = [(factor(1000), 2.0), (factor(100), 1.05), (factor(10), 1.01), (factor(1), 1.0), (0.3, 50.0)]
    assert knee(points) == 1


def test_knee_of_equally_far_points_is_the_least_compressed() -> None:
    # scaled: (0, 0), (0.25, 0), (1, 0.75), (1, 1), each coordinate exact in binary
    points = [(1 - 2.0**-x, y) for x, y in [(0, 0.0), (2, 1.0), (6, 5.0), (8, 8.0)]]
    assert knee(points) == 1


def test_knee_of_a_short_front_is_the_most_compressed() -> None:
    assert knee([(0.5, 1.0)]) == 0
    assert knee([(0.9, 2.0), (0.5, 1.0), (0.4, 1.5)]) == 0


def test_knee_where_one_point_has_nothing_left() -> None:
    assert knee([(0.0, 1.0), (0.99, 1.1), (1.0, 90.0)]) == 1


@pytest.mark.parametrize("points", [[], [(math.nan, 1.0)]])
def test_no_knee_without_points(points: list[Point]) -> None:
    with pytest.raises(ValueError, match="no knee"):
        knee(points)


@given(finite_points.filter(bool))
def test_knee_is_farthest_by_the_formula_of_a_line_through_two_points(points: list[Point]) -> None:
    members = front(points)
    if len(members) < 3:
        assert knee(points) == members[-1]
        return
    scaled = _scaled([points[i] for i in members])
    far = max(_distance(point, scaled[0], scaled[-1]) for point in scaled)
    found = _distance(scaled[members.index(knee(points))], scaled[0], scaled[-1])
    assert found == pytest.approx(far, abs=1e-6)


def _scaled(points: list[Point]) -> list[Point]:
    x = [-math.log10(max(1 - compression, 1e-16)) for compression, _ in points]
    y = [error for _, error in points]
    return [((u - x[0]) / ((x[-1] - x[0]) or 1.0), (v - y[0]) / (y[-1] - y[0])) for u, v in zip(x, y, strict=True)]


def _distance(point: Point, start: Point, end: Point) -> float:
    across, up = end[0] - start[0], end[1] - start[1]
    area = abs(across * (start[1] - point[1]) - (start[0] - point[0]) * up)
    return area / math.hypot(across, up)


many = st.lists(st.tuples(*[st.integers(0, 4)] * 4), max_size=30)


@given(many)
def test_with_more_coordinates_the_front_is_what_nothing_dominates(points: list[tuple[int, ...]]) -> None:
    found = front(points)
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)
    kept = {points[i] for i in found}
    assert len(kept) == len(found)
    assert kept == {p for p in points if not any(dominates(q, p) for q in points)}
