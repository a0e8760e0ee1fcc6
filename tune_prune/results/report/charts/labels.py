"""Places the names of points in a chart where they cross neither each other nor a point."""

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 880.0, 280.0
"""The size in pixels that a chart's area is taken to have; a wider one has more room."""

LETTER, LINE, GAP, POINT = 6.2, 14.0, 7.0, 5.0
"""In pixels: the width and height of a letter, the gap between a point and its name, and half of a point."""

SIDES = ("middle right", "middle left", "top center", "bottom center")


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        """Whether the two have some area in common."""
        apart_x = self.right <= other.left or other.right <= self.left
        return not (apart_x or self.bottom <= other.top or other.bottom <= self.top)


def place_labels(
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    taken: Sequence[tuple[float, float]],
    factors: tuple[float, float],
    values: tuple[float, float],
) -> list[str]:
    """The side of its point on which each name stands, as plotly calls it; "" where there is no room for it.

    `points` and `taken`, all points of the chart, are (factor, value); the axis of `factors` is logarithmic.
    """

    def pixel(point: tuple[float, float]) -> tuple[float, float]:
        across = math.log(point[0] / factors[0]) / math.log(factors[1] / factors[0])
        return WIDTH * across, HEIGHT * (values[1] - point[1]) / (values[1] - values[0])

    full = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in map(pixel, taken)]
    found = []
    for name, point in zip(names, points, strict=True):
        boxes = _list_boxes(*pixel(point), LETTER * len(name))
        free = [
            side
            for side, box in boxes.items()
            if box.left >= 0 and box.right <= WIDTH and box.top >= 0 and box.bottom <= HEIGHT
            and not any(box.overlaps(other) for other in full)
        ]  # fmt: skip
        full += [boxes[side] for side in free[:1]]
        found.append(free[0] if free else "")
    return found


def _list_boxes(x: float, y: float, width: float) -> dict[str, Box]:
    """Where a name of this width would stand on each side of a point."""
    half, line = width / 2, LINE / 2
    places = (
        Box(x + GAP, y - line, x + GAP + width, y + line),
        Box(x - GAP - width, y - line, x - GAP, y + line),
        Box(x - half, y - GAP - LINE, x + half, y - GAP),
        Box(x - half, y + GAP, x + half, y + GAP + LINE),
    )
    return dict(zip(SIDES, places, strict=True))
