"""Draws the picture of a search with matplotlib: what every round reached, and the front among it."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from tune_prune.common import files
from tune_prune.results import front_picture, palette
from tune_prune.results.front_picture import FrontPicture
from tune_prune.results.tables import pareto_table, points_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tune_prune.results.outcome import SearchOutcome


MARKERS = {"within": "o", "stopped": "o", "above": "x"}
ERRORS = ["val_error", "test_error", "test_error_low", "test_error_high"]


def draw_pareto(path: Path, outcome: "SearchOutcome") -> None:
    """Draws error in percent over factor: every round, the front and its test errors, dense and the limit.

    Rounds far above the limit are counted in the legend, not shown: a few collapsed networks would flatten the front.
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
    names = len(axes.get_legend_handles_labels()[0])
    if names:
        columns = 4 if names <= 4 else 3
        figure.legend(loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False, handletextpad=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())


def describe_outcome(outcome: "SearchOutcome") -> FrontPicture:
    """Describes the picture of a search that has ended."""
    info, states = outcome.info, {record.trial: record.state for record in outcome.records}
    points = points_table(outcome.records, ()).astype({"factor": float, "val_error": float, "feasible": bool})
    points["state"] = points.trial.map(states)
    members = pareto_table(outcome.members, outcome.tested, info).astype(dict.fromkeys(["factor", *ERRORS], float))
    dense_test = math.nan if outcome.dense_test is None else outcome.dense_test.metric
    return front_picture.describe_front(points, members, info.limit, info.dense_metric, dense_test)


def _draw_axes(axes: "Axes", picture: FrontPicture) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(*picture.factors)
    axes.set_ylim(*picture.errors)
    axes.xaxis.set_major_locator(FixedLocator(picture.marks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda factor, _: f"{factor:g}x")
    axes.set_xlabel(front_picture.FACTOR_TITLE)
    axes.set_ylabel(front_picture.ERROR_TITLE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=palette.GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_levels(axes: "Axes", picture: FrontPicture) -> None:
    """Draws the dense model's error and the limit, labelled right of the lines' ends."""
    styles = {"dense": ("--", "top"), "limit": ("-", "bottom")}  # so labels stay apart when levels are close or equal
    at_right, black = axes.get_yaxis_transform(), palette.BLACK
    for level in picture.levels:
        style, side = styles[level.name]
        label = f"{level.label}\n{level.note}" if level.note else level.label
        axes.axhline(level.error, color=black, linestyle=style, linewidth=0.9, zorder=2)
        axes.text(1.008, level.error, label, transform=at_right, va=side, fontsize=8.5, color=black)


def _draw_rounds(axes: "Axes", picture: FrontPicture) -> None:
    for series in picture.series:
        axes.scatter(
            series.rounds.factor,
            series.rounds.val_error,
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
    """Draws the front as steps: the least error at a factor is that of the next member to the right."""
    members, tested = picture.members, picture.tested
    if not len(members):
        return
    axes.step(*picture.line, where="pre", color=palette.BLUE, linewidth=1.8, zorder=4)
    name = front_picture.FRONT_NAME
    axes.plot(members.factor, members.val_error, "o", color=palette.BLUE, markersize=5.5, label=name, zorder=6)
    if len(tested):
        bars = axes.errorbar(
            tested.factor,
            tested.test_error,
            (tested.down, tested.up),
            fmt="D",
            color=palette.ORANGE,
            markerfacecolor="white",
            markersize=4.5,
            elinewidth=1,
            label=front_picture.TEST_NAME,
            zorder=5,
        )
        bars[2][0].set(alpha=0.55, zorder=3.5)  # the intervals step back behind the points they belong to
    factor, error = float(members.factor.iloc[-1]), float(members.val_error.iloc[-1])
    blue = palette.BLUE
    axes.annotate(f"{factor:.1f}x", (factor, error), (7, -10), textcoords="offset points", color=blue, weight="bold")


def _title(outcome: "SearchOutcome") -> str:
    info, best = outcome.info, outcome.best
    reached = f"{best.point.factor:.1f}x fewer weights" if best else "nothing"
    return f"{info.model} on {info.data}: {reached} within {info.acc_tradeoff:g} points of the dense error"
