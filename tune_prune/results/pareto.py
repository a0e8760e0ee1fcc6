"""Which points are worth keeping: dominance, front, hypervolume, knee.

A point is (compression, error): the fraction of weights removed, in [0, 1], to be maximised, and the
misclassified images in percent, to be minimised. Dominance and front take further coordinates, to be minimised, too.
Points with an infinite or NaN coordinate take no part.
"""

import math
import operator
from collections.abc import Sequence
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Points: TypeAlias = Sequence[Sequence[float]]

# Beyond every compression below 1, whose factor is at most 2**53, about 10**15.95: it bounds only 1 itself.
_LOG_FACTOR_OF_NOTHING_LEFT = 16.0


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a is nowhere worse than b and somewhere better; both finite."""
    return a[0] >= b[0] and all(ours <= theirs for ours, theirs in zip(a[1:], b[1:], strict=True)) and a != b


def front(points: Points) -> list[int]:
    """Indices of the points that no other dominates, ascending in compression; of equal points the first.

    O(n log n) in their number, with more than two coordinates times the front's length.
    """
    finite = (i for i, point in enumerate(points) if all(map(math.isfinite, point)))
    in_order = sorted(finite, key=lambda i: (-points[i][0], *points[i][1:], i))
    kept: list[int] = []
    for i in in_order:  # all that could dominate a point come before it, and with two the last kept is the lowest
        rest, ahead = points[i][1:], kept[-1:] if len(points[i]) == 2 else kept
        if not any(all(map(operator.le, points[k][1:], rest)) for k in ahead):
            kept.append(i)
    return kept[::-1]


def hypervolume(points: Sequence[Point], max_error: float, max_log_factor: float = 3.0) -> float:
    """The share, in [0, 1], of a rectangle that the points dominate (Zitzler and Thiele 1998).

    The rectangle spans log10(factor), factor = 1 / (1 - compression), from 0 to `max_log_factor`, to which
    larger ones are clipped, and error from 0 to `max_error` percent, above which a point counts for nothing.
    Raises ValueError where the rectangle is empty.
    """
    if not (max_error > 0 and max_log_factor > 0):
        raise ValueError(f"the rectangle must have an area, got sides {max_error} and {max_log_factor}")
    areas = []
    reached = 0.0
    for i in front(points):  # ascending in both: each adds the strip to the right of the one before
        compression, error = points[i]
        if error > max_error:
            break
        log_factor = _log_factor(compression, max_log_factor)
        areas.append((log_factor - reached) * (max_error - max(error, 0.0)))
        reached = log_factor
    return min(1.0, math.fsum(areas) / (max_log_factor * max_error))


def knee(points: Sequence[Point]) -> int:
    """Index of the point of the front farthest from the chord between the front's ends.

    Distance is taken in (log10 factor, error), each scaled to [0, 1] over the front; of equally far points
    the least compressed, of a front of one or two the most compressed. Raises ValueError where it is empty.
    """
    members = front(points)
    if not members:
        raise ValueError("no finite point, so no knee")
    if len(members) <= 2:
        return members[-1]
    x = [_log_factor(points[i][0], _LOG_FACTOR_OF_NOTHING_LEFT) for i in members]
    y = [points[i][1] for i in members]
    # A front rises in both: its chord is the unit square's diagonal, and |x - y| / sqrt(2) the distance.
    gaps = [abs((u - x[0]) / (x[-1] - x[0]) - (v - y[0]) / (y[-1] - y[0])) for u, v in zip(x, y, strict=True)]
    return members[gaps.index(max(gaps))]


def _log_factor(compression: float, largest: float) -> float:
    """log10(1 / (1 - compression)), clipped to [0, largest]."""
    if compression >= 1:
        return largest
    return min(max(-math.log1p(-compression) / math.log(10), 0.0), largest)
