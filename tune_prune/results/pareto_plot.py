"""Draws the picture of a search with matplotlib: what every round reached, and the front among it."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tune_prune.common import files
from tune_prune.common.entrypoints import describe_address
from tune_prune.results import front_picture, palette
from tune_prune.results.front_picture import FrontPicture, Level
from tune_prune.results.tables import pareto_table, points_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tune_prune.results.outcome import SearchOutcome


MARKERS = {"within": "o", "stopped": "o", "beyond": "x", "far": "^"}

OFFSETS = {"left": (-16, -26), "center": (-14, -26), "right": (20, -40)}
"""How far a name stands from its point, by the side of it that is there, in points: on the right a front is steep."""

MAX_TITLE, MAX_LEGEND = 84, 116
"""So many characters of the title, and of the labels of the legend, stand in a line that is as wide as the picture."""


def draw_pareto(path: Path, outcome: "SearchOutcome") -> None:
    """Draws the metric over factor: every round and the front on validation data, and below its test results.

    Rounds far beyond the limit are drawn at the edge: a few collapsed networks would flatten the front.
    """
    draw_picture(path, describe_outcome(outcome), _title(outcome))


def draw_picture(path: Path, picture: FrontPicture, title: str) -> None:
    """Draws a picture of a front; without test results there is no part for them."""
    from matplotlib.figure import Figure  # not on import: it takes half a second, and workers never draw

    tested = len(picture.tested) > 0
    figure = Figure(figsize=(9, 6.8 if tested else 5.4), dpi=150, layout="constrained")
    parts = figure.subplots(2 if tested else 1, sharex=True, squeeze=False, height_ratios=[5, 3] if tested else None)
    axes = parts[0, 0]
    _draw_axes(axes, picture, picture.values, f"validation {picture.metric.title}")
    _draw_levels(axes, picture.levels)
    _draw_rounds(axes, picture)
    _draw_front(axes, picture)
    if tested:
        below = parts[1, 0]
        _draw_axes(below, picture, picture.test_values, f"test {picture.metric.title}")
        _draw_levels(below, picture.test_levels)
        _draw_tests(below, picture)
    parts[-1, 0].set_xlabel(front_picture.FACTOR_TITLE)
    axes.set_title(textwrap.fill(title, MAX_TITLE), loc="left", fontsize=12, color=palette.BLACK, parse_math=False)
    labels = [label for part in parts.flat for label in part.get_legend_handles_labels()[1]]
    if labels:
        columns = _count_columns(labels)
        figure.legend(loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False, handletextpad=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())


def describe_outcome(outcome: "SearchOutcome") -> FrontPicture:
    """Describes the picture of a search that has ended."""
    info, states = outcome.info, {record.trial: record.state for record in outcome.records}
    metric = info.metric
    points = points_table(outcome.records, (), metric).astype({"factor": float, metric.val: float, "feasible": bool})
    points["state"] = points.trial.map(states)
    numbers = ["factor", metric.val, metric.test, f"{metric.test}_low", f"{metric.test}_high"]
    members = pareto_table(outcome.members, outcome.tested, info).astype(dict.fromkeys(numbers, float))
    dense_test = math.nan if outcome.dense_test is None else outcome.dense_test.metric
    return front_picture.describe_front(points, members, info.limit, info.dense_metric, dense_test, metric)


def _draw_axes(axes: "Axes", picture: FrontPicture, values: tuple[float, float], title: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(*picture.factors)
    axes.set_ylim(*values)
    axes.xaxis.set_major_locator(FixedLocator(picture.ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda factor, _: f"{factor:g}x")
    axes.set_ylabel(title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=palette.GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_levels(axes: "Axes", levels: Sequence[Level]) -> None:
    """Draws the dense model's metric and the limit, labelled right of the lines' ends."""
    styles = {"dense": ("--", "top"), "limit": ("-", "bottom")}  # so labels stay apart when levels are close or equal
    at_right, black = axes.get_yaxis_transform(), palette.BLACK
    for level in levels:
        style, side = styles[level.name]
        axes.axhline(level.value, color=black, linestyle=style, linewidth=0.9, zorder=2)
        axes.text(1.008, level.value, level.label, transform=at_right, va=side, fontsize=8.5, color=black)


def _draw_rounds(axes: "Axes", picture: FrontPicture) -> None:
    for series in picture.series:
        hollow = series.kind in ("stopped", "far")
        axes.scatter(
            series.x,
            series.y,
            s=14,
            c="none" if hollow else series.colour,
            edgecolors=series.colour if hollow else None,
            marker="v" if series.kind == "far" and picture.metric.better == "higher" else MARKERS[series.kind],
            linewidths=0.9,
            alpha=series.opacity,
            label=f"{series.name} ({len(series.rounds):,})",
            zorder=3,
        )


def _draw_front(axes: "Axes", picture: FrontPicture) -> None:
    """Draws the front as steps: the best metric at a factor is that of the next member to the right."""
    members = picture.members
    if not len(members):
        return
    axes.step(*picture.line, where="pre", color=palette.BLUE, linewidth=1.8, zorder=4)
    name, blue = picture.front_name, palette.BLUE
    axes.plot(members.factor, picture.heights, "o", color=blue, markersize=5.5, label=name, zorder=6)
    _name_marks(axes, picture, dict(zip(map(str, members.id), picture.heights, strict=True)), blue)


def _draw_tests(axes: "Axes", picture: FrontPicture) -> None:
    """Draws the test results of the front's members, with their intervals."""
    tested = picture.tested
    bars = axes.errorbar(
        tested.factor,
        tested[picture.metric.test],
        (tested.down, tested.up),
        fmt="D",
        color=palette.ORANGE,
        markersize=4.5,
        elinewidth=1,
        label=picture.test_name,
        zorder=5,
    )
    bars[2][0].set(alpha=0.55, zorder=3.5)  # the intervals step back behind the points they belong to
    _name_marks(axes, picture, dict(zip(map(str, tested.id), picture.test_reach, strict=True)), palette.ORANGE)


def _name_marks(axes: "Axes", picture: FrontPicture, heights: Mapping[str, float], colour: str) -> None:
    """Names the knee and the best member, on the side of the front where there are no rounds; `heights` by id."""
    factors = dict(zip(map(str, picture.members.id), picture.members.factor, strict=True))
    down = 1 if picture.metric.better == "lower" else -1
    for mark in picture.marks:
        if mark.id in heights:
            side = picture.find_side(factors[mark.id])
            axes.annotate(
                f"{mark.name} {factors[mark.id]:.1f}x",
                (factors[mark.id], heights[mark.id]),
                (OFFSETS[side][0], OFFSETS[side][1] * down),
                textcoords="offset points",
                ha=side,
                va="center",
                color=colour,
                weight="bold",
                fontsize=9,
                zorder=3.9,  # points of the front stay in sight
                arrowprops={"arrowstyle": "-", "color": palette.GREY, "linewidth": 0.8, "shrinkB": 4},
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )


def _count_columns(labels: list[str]) -> int:
    """The most columns, at most four and of more than four labels three, in which the legend is not too wide."""
    for columns in range(4 if len(labels) <= 4 else 3, 1, -1):
        parts = np.array_split(np.array([len(label) for label in labels]), columns)  # as matplotlib splits them
        if sum(int(part.max()) for part in parts if len(part)) <= MAX_LEGEND:
            return columns
    return 1


def _title(outcome: "SearchOutcome") -> str:
    info, best = outcome.info, outcome.best
    reached = f"{best.point.factor:.1f}x fewer weights" if best else "nothing"
    within = info.metric.format_tradeoff(info.acc_tradeoff)
    what = f"{describe_address(info.model)} on {describe_address(info.data)}"
    return f"{what}: {reached} within {within} of the dense {info.metric.name}"
