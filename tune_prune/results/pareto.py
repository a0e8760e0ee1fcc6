"""Dominance, the Pareto front, its hypervolume and its knee.

A point is (compression, error): the share of weights removed, in [0, 1], to be maximised, and the misclassified images
in percent, or another metric as a cost (`Metric.cost`), to be minimised. Dominance and front take further coordinates,
too, all to be minimised. Points with an infinite or NaN coordinate are left out.
"""

import math
import operator
from collections.abc import Sequence
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Points: TypeAlias = Sequence[Sequence[float]]

# Stands for the infinite log10(factor) of compression 1: that of every double below 1 is at most log10(2**53) = 15.95.
_LOG_FACTOR_OF_NOTHING_LEFT = 16.0


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether point a is nowhere worse than point b and somewhere better; both are finite."""
    return a[0] >= b[0] and all(ours <= theirs for ours, theirs in zip(a[1:], b[1:], strict=True)) and a != b


def front(points: Points) -> list[int]:
    """Finds the points that no other dominates: their indices, ascending in compression; of equal points the first.

    Takes O(n log n) time for n points of two coordinates; with more coordinates, O(n (log n + m)) for a front of m.
    """
    finite = (i for i, point in enumerate(points) if all(map(math.isfinite, point)))
    in_order = sorted(finite, key=lambda i: (-points[i][0], *points[i][1:], i))
    kept: list[int] = []
    # all points that could dominate a point come before it; with two coordinates the last one kept has the lowest error
    for i in in_order:
        costs, rivals = points[i][1:], kept[-1:] if len(points[i]) == 2 else kept
        if not any(all(map(operator.le, points[k][1:], costs)) for k in rivals):
            kept.append(i)
    return kept[::-1]


def hypervolume(
    points: Sequence[Point], max_error: float, max_log_factor: float = 3.0, min_error: float = 0.0
) -> float:
    """Computes the share, in [0, 1], of a rectangle that the points dominate (Zitzler and Thiele 1998).

    The rectangle spans log10(factor), factor = 1 / (1 - compression), from 0 to `max_log_factor`, and error from
    `min_error` to `max_error`. Larger factors and lower errors are clipped to it; points of a larger error dominate
    none of it. Raises `ValueError` where the rectangle has no area.
    """
    height = max_error - min_error
    if not (height > 0 and max_log_factor > 0):
        raise ValueError(f"the rectangle must have an area, got sides {height} and {max_log_factor}")
    areas = []
    left = 0.0
    for i in front(points):  # ascending in both coordinates: each point adds the strip to the right of the one before
        compression, error = points[i]
        if error > max_error:
            break
        reached = log_factor(compression, max_log_factor)
        areas.append((reached - left) * (max_error - max(error, min_error)))
        left = reached
    return min(1.0, math.fsum(areas) / (max_log_factor * height))


def knee(points: Sequence[Point]) -> int:
    """Finds the knee: the index of the front's point that is farthest from the chord between the front's ends.

    Distances are in (log10 factor, error), each scaled to [0, 1] over the front. Of equally far points the knee is the
    least compressed; of a front of one or two points it is the most compressed. Raises `ValueError` where no point is
    finite.
    """
    members = front(points)
    if not members:
        raise ValueError("no finite point, so no knee")
    if len(members) <= 2:
        return members[-1]
    x = [log_factor(points[i][0]) for i in members]
    y = [points[i][1] for i in members]
    # a front rises in both coordinates: its chord is the unit square's diagonal, and |x - y| / sqrt(2) the distance
    gaps = [abs((u - x[0]) / (x[-1] - x[0]) - (v - y[0]) / (y[-1] - y[0])) for u, v in zip(x, y, strict=True)]
    return members[gaps.index(max(gaps))]


def log_factor(compression: float, largest: float = _LOG_FACTOR_OF_NOTHING_LEFT) -> float:
    """log10(1 / (1 - compression)), clipped to [0, largest]."""
    if compression >= 1:
        return largest
    return min(max(-math.log1p(-compression) / math.log(10), 0.0), largest)
