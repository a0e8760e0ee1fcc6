"""Draws the picture of a search with matplotlib: what every round reached, and the front among it."""

import io
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tune_prune.common import files
from tune_prune.common.entrypoints import describe_address
from tune_prune.results import front_picture, palette
from tune_prune.results.front_picture import FrontPicture
from tune_prune.results.tables import pareto_table, points_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tune_prune.results.outcome import SearchOutcome


MARKERS = {"within": "o", "stopped": "o", "beyond": "x"}

MAX_TITLE, MAX_LEGEND = 84, 116
"""So many characters of the title, and of the labels of the legend, stand in a line that is as wide as the picture."""


def draw_pareto(path: Path, outcome: "SearchOutcome") -> None:
    """Draws the metric over factor: every round, the front and its test results, dense and the limit.

    Rounds far beyond the limit are counted in the legend, not shown: a few collapsed networks would flatten the front.
    """
    from matplotlib.figure import Figure  # not on import: it takes half a second, and workers never draw

    picture = describe_outcome(outcome)
    figure = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _draw_axes(axes, picture)
    _draw_levels(axes, picture)
    _draw_rounds(axes, picture)
    _draw_front(axes, picture)
    axes.set_title(_title(outcome), loc="left", fontsize=12, color=palette.BLACK, parse_math=False)
    labels = axes.get_legend_handles_labels()[1]
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


def _draw_axes(axes: "Axes", picture: FrontPicture) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(*picture.factors)
    axes.set_ylim(*picture.values)
    axes.xaxis.set_major_locator(FixedLocator(picture.marks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda factor, _: f"{factor:g}x")
    axes.set_xlabel(front_picture.FACTOR_TITLE)
    axes.set_ylabel(picture.metric.title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=palette.GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_levels(axes: "Axes", picture: FrontPicture) -> None:
    """Draws the dense model's metric and the limit, labelled right of the lines' ends."""
    styles = {"dense": ("--", "top"), "limit": ("-", "bottom")}  # so labels stay apart when levels are close or equal
    at_right, black = axes.get_yaxis_transform(), palette.BLACK
    for level in picture.levels:
        style, side = styles[level.name]
        label = f"{level.label}\n{level.note}" if level.note else level.label
        axes.axhline(level.value, color=black, linestyle=style, linewidth=0.9, zorder=2)
        axes.text(1.008, level.value, label, transform=at_right, va=side, fontsize=8.5, color=black)


def _draw_rounds(axes: "Axes", picture: FrontPicture) -> None:
    for series in picture.series:
        axes.scatter(
            series.rounds.factor,
            series.rounds[picture.metric.val],
            s=14,
            c="none" if series.kind == "stopped" else series.colour,
            edgecolors=series.colour if series.kind == "stopped" else None,
            marker=MARKERS[series.kind],
            linewidths=0.9,
            alpha=series.opacity,
            label=f"{series.name} ({series.hidden} out of sight)" if series.hidden else series.name,
            zorder=3,
        )


def _draw_front(axes: "Axes", picture: FrontPicture) -> None:
    """Draws the front as steps: the best metric at a factor is that of the next member to the right."""
    members, tested = picture.members, picture.tested
    if not len(members):
        return
    axes.step(*picture.line, where="pre", color=palette.BLUE, linewidth=1.8, zorder=4)
    name = picture.front_name
    axes.plot(members.factor, picture.heights, "o", color=palette.BLUE, markersize=5.5, label=name, zorder=6)
    if len(tested):
        bars = axes.errorbar(
            tested.factor,
            tested[picture.metric.test],
            (tested.down, tested.up),
            fmt="D",
            color=palette.ORANGE,
            markerfacecolor="white",
            markersize=4.5,
            elinewidth=1,
            label=picture.test_name,
            zorder=5,
        )
        bars[2][0].set(alpha=0.55, zorder=3.5)  # the intervals step back behind the points they belong to
    factor, error = float(members.factor.iloc[-1]), float(picture.heights.iloc[-1])
    blue = palette.BLUE
    axes.annotate(f"{factor:.1f}x", (factor, error), (7, -10), textcoords="offset points", color=blue, weight="bold")


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
    title = f"{what}: {reached} within {within} of the dense {info.metric.name}"
    return textwrap.fill(title, MAX_TITLE)
