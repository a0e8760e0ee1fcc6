"""The picture of a search: what every round reached, and the front among it."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tune_prune.common import files
from tune_prune.results.front import Member, TestResult, most_compressed
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_info import RunInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Okabe and Ito's colours, which tell apart for every kind of colour vision
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#8A8A8A", "#1A1A1A"


def draw_pareto(
    path: Path,
    records: Sequence[TrialRecord],
    members: Sequence[Member],
    info: RunInfo,
    tested: Mapping[str, TestResult],
    dense_test_error: float | None,
) -> None:
    """Draw error in percent over factor: every round, the front, its test errors by member id, dense and the limit.

    Rounds far above the limit are counted in the legend, not shown: a few collapsed networks would flatten the front.
    """
    from matplotlib.figure import Figure  # not on import: it takes half a second, and workers never draw

    figure = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    points = [point for record in records for point in record.points if _drawable(point)]
    top = _draw_axes(axes, points, _error_range(points, members, info, tested))
    _draw_levels(axes, info, dense_test_error)
    _draw_rounds(axes, points, top)
    _draw_front(axes, members, tested)
    axes.set_title(_title(members, info), loc="left", fontsize=12, color=BLACK, parse_math=False)
    if points:
        figure.legend(loc="outside lower center", ncols=4, fontsize=8.5, frameon=False, handletextpad=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())


def _drawable(point: PointRecord) -> bool:
    return math.isfinite(point.factor) and point.factor > 0 and math.isfinite(point.val_error)


def _error_range(
    points: Sequence[PointRecord], members: Sequence[Member], info: RunInfo, tested: Mapping[str, TestResult]
) -> tuple[float, float]:
    """The errors between which to look: all that matter to the front, and some way above the limit."""
    tests = [tested[member.id] for member in members if member.id in tested]
    reach = info.acc_tradeoff or max(0.1, info.dense_val_error / 2)
    low = min([info.dense_val_error, *(p.val_error for p in points), *(test.low for test in tests)])
    high = max([info.limit + 0.6 * reach, *(test.high for test in tests)])
    if points and not members:
        high = max(high, min(p.val_error for p in points) + reach)  # else the nearest miss is out of sight
    return max(low - 0.06 * (high - low), -0.02 * high), high + 0.02 * (high - low)


def _draw_axes(axes: "Axes", points: Sequence[PointRecord], errors: tuple[float, float]) -> float:
    """Scales, ticks and labels; returns the greatest error in sight."""
    from matplotlib.ticker import FixedLocator, NullLocator

    bottom, top = errors
    right = 1.25 * max([8.0, *(point.factor for point in points if point.val_error <= top)])
    axes.set_xscale("log")
    axes.set_xlim(0.92, right)
    axes.set_ylim(bottom, top)
    marks = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([mark for mark in marks if mark <= right]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda factor, _: f"{factor:g}x")
    axes.set_xlabel("times fewer weights")
    axes.set_ylabel("error, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    return top


def _draw_levels(axes: "Axes", info: RunInfo, dense_test_error: float | None) -> None:
    """The dense model's error and the limit, labelled right of the lines' ends."""
    tested = "" if dense_test_error is None else f"\n(test {dense_test_error:.2f} %)"
    levels = [
        (info.dense_val_error, "--", "top", f"dense {info.dense_val_error:.2f} %{tested}"),
        (info.limit, "-", "bottom", f"limit {info.limit:.2f} %"),
    ]
    for error, style, side, label in levels:  # the sides keep the labels apart when the levels are close or equal
        axes.axhline(error, color=BLACK, linestyle=style, linewidth=0.9, zorder=2)
        axes.text(1.008, error, label, transform=axes.get_yaxis_transform(), va=side, fontsize=8.5, color=BLACK)


def _draw_rounds(axes: "Axes", points: Sequence[PointRecord], top: float) -> None:
    hidden = sum(point.val_error > top for point in points)
    more = f" ({hidden} out of sight)" if hidden else ""
    kinds = [
        (True, "o", BLUE, 0.4, "round within the limit"),
        (False, "x", GREY, 0.8, f"round above the limit{more}"),
    ]
    for feasible, marker, colour, alpha, label in kinds:
        x = [point.factor for point in points if point.feasible is feasible]
        y = [point.val_error for point in points if point.feasible is feasible]
        if x:
            axes.scatter(x, y, s=14, c=colour, marker=marker, linewidths=0.9, alpha=alpha, label=label, zorder=3)


def _draw_front(axes: "Axes", members: Sequence[Member], tested: Mapping[str, TestResult]) -> None:
    """The front as steps, for the least error at a factor is that of the next member to the right; its test errors."""
    shown = [member for member in members if _drawable(member.point)]
    if not shown:
        return
    x, y = [member.point.factor for member in shown], [member.point.val_error for member in shown]
    axes.step([1.0, *x], [y[0], *y], where="pre", color=BLUE, linewidth=1.8, zorder=4)
    axes.plot(x, y, "o", color=BLUE, markersize=5.5, label="front, validation error", zorder=6)
    both = [(member.point.factor, tested[member.id]) for member in shown if member.id in tested]
    if both:
        errors = [test.error for _, test in both]
        down, up = [t.error - t.low for _, t in both], [t.high - t.error for _, t in both]
        bars = axes.errorbar(
            [factor for factor, _ in both],
            errors,
            (down, up),
            fmt="D",
            color=ORANGE,
            markerfacecolor="white",
            markersize=4.5,
            elinewidth=1,
            label="its test error, 95 % interval",
            zorder=5,
        )
        bars[2][0].set(alpha=0.55, zorder=3.5)  # the intervals step back behind the points they belong to
    axes.annotate(f"{x[-1]:.1f}x", (x[-1], y[-1]), (7, -10), textcoords="offset points", color=BLUE, weight="bold")


def _title(members: Sequence[Member], info: RunInfo) -> str:
    best = most_compressed(members)
    found = f"{best.point.factor:.1f}x fewer weights" if best else "nothing"
    return f"{info.model} on {info.data}: {found} within {info.acc_tradeoff:g} points of the dense error"
