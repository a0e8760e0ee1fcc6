"""A report's first chart, as a plotly figure: every round of a search, the front, and what to compare it with."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame

from tune_prune.results.report.charts import (
    BLUE,
    GREEN,
    GREY,
    LINES,
    ORANGE,
    YELLOW,
    add_levels,
    factors,
    layers_of,
    styled,
)
from tune_prune.results.report.published import Published

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


MOST_HOVERED = 12
"""Layers whose ratios a point shows when it is pointed at; its .conf has all of them."""


def front(
    points: DataFrame,
    members: DataFrame,
    levels: Mapping[str, float],
    published: Sequence[Published],
    others: Mapping[str, DataFrame],
) -> "Figure":
    """Error over factor: every round, the front among them, and what there is to compare them with.

    `points` as points.csv with the `state` of each trial, `members` as pareto.csv; `levels` are errors in percent by
    what they are called, of which "limit" is the highest feasible one; `others` the fronts of other runs by name.
    """
    import plotly.graph_objects as go

    layers = layers_of(points)
    kinds = [
        ("round above the limit", ~points.feasible, {"color": GREY, "symbol": "x-thin-open", "size": 6}, 0.7),
        ("round of a trial that was stopped", points.feasible & (points.state == "stopped"),
         {"color": YELLOW, "symbol": "circle-open", "size": 6}, 0.9),
        ("round within the limit", points.feasible & (points.state != "stopped"),
         {"color": BLUE, "symbol": "circle", "size": 5}, 0.4),
    ]  # fmt: skip
    figure = go.Figure()
    for name, chosen, marker, opacity in kinds:
        part = points[chosen]
        if len(part):
            figure.add_scattergl(
                x=part.factor.to_numpy(), y=part.val_error.to_numpy(), mode="markers", name=f"{name} ({len(part):,})",
                marker=marker, opacity=opacity, customdata=_numbers(part, layers), text=_pruners(part, layers),
                hovertemplate=_hover(layers), meta="points",
            )  # fmt: skip
    for number, (name, other) in enumerate(others.items()):
        figure.add_scatter(
            x=other.factor, y=other.val_error, mode="lines+markers", name=escape(name), marker={"size": 4},
            line={"shape": "vh", "width": 1.2, "dash": "dot", "color": LINES[3 + number % 3]},
        )  # fmt: skip
    _add_members(figure, members, layers)
    if published:
        figure.add_scatter(
            x=[100 / one.kept for one in published], y=[one.error for one in published], mode="markers",
            name="published, test error", marker={"symbol": "star", "size": 9, "color": GREEN},
            text=[escape(one.work) for one in published],
            hovertemplate="%{text}<br>%{x:.1f}x, %{y:.2f} %<extra></extra>",
        )  # fmt: skip
    add_levels(figure, levels)
    right = max([8.0, *members.factor, *points[points.feasible].factor])
    figure.update_xaxes(factors(right * 1.3))
    figure.update_yaxes(title="error, %", range=_sight(points, members, levels))
    return styled(figure)


def _add_members(figure: "Figure", members: DataFrame, layers: Sequence[str]) -> None:
    """The front as steps, for the least error at a factor is that of the next member to the right; its test errors."""
    if not len(members):
        return
    figure.add_scatter(
        x=members.factor, y=members.val_error, mode="lines+markers", name="front, validation error",
        line={"shape": "vh", "width": 2, "color": BLUE}, marker={"size": 8, "color": BLUE},
        customdata=_numbers(members, layers), text=_pruners(members, layers), ids=[str(one) for one in members.id],
        hovertemplate=_hover(layers), meta="front",
    )  # fmt: skip
    tested = members[members.test_error.notna()] if "test_error" in members else members[:0]
    if len(tested):
        up, down = tested.test_error_high - tested.test_error, tested.test_error - tested.test_error_low
        figure.add_scatter(
            x=tested.factor, y=tested.test_error, mode="markers", name="its test error, 95 % interval",
            marker={"symbol": "diamond-open", "size": 7, "color": ORANGE},
            error_y={"type": "data", "array": up, "arrayminus": down, "width": 0, "thickness": 1},
            ids=[str(one) for one in tested.id], hovertemplate="%{x:.1f}x, %{y:.2f} % on test images<extra></extra>",
        )  # fmt: skip


def _numbers(table: DataFrame, layers: Sequence[str]) -> np.ndarray:
    """What a point shows and its .conf is made of: trial, round, and a ratio a layer; float32 [points, 2 + layers]."""
    columns = ["trial", "round", *(f"ratio/{layer}" for layer in layers)]
    return table.reindex(columns=columns).to_numpy(dtype=np.float32)


def _pruners(table: DataFrame, layers: Sequence[str]) -> list[str]:
    """The pruners of each point's layers, in a word where all are the same; escaped, for plotly reads HTML."""
    columns = [f"pruner/{layer}" for layer in layers if f"pruner/{layer}" in table]
    rows = table[columns].astype(object).where(table[columns].notna(), "").astype(str).to_numpy()
    return [escape(row[0] if len(set(row)) == 1 else ",".join(row)) if len(row) else "" for row in rows]


def _hover(layers: Sequence[str]) -> str:
    shown = [f"{escape(layer)}: %{{customdata[{2 + i}]:.4g}}" for i, layer in enumerate(layers[:MOST_HOVERED])]
    more = [f"and {len(layers) - MOST_HOVERED} layers"] if len(layers) > MOST_HOVERED else []
    head = ["<b>%{x:.1f}x</b>, %{y:.2f} %", "trial %{customdata[0]}, round %{customdata[1]}", "%{text}, removed in"]
    return "<br>".join([*head, *shown, *more]) + "<extra></extra>"


def _sight(points: DataFrame, members: DataFrame, levels: Mapping[str, float]) -> list[float]:
    """The errors between which to look: a few collapsed networks would flatten the front."""
    limit, dense = levels.get("limit", math.inf), min([*levels.values(), math.inf])
    seen = points[points.val_error <= (limit if math.isfinite(limit) else math.inf)].val_error
    tests = [*members.get("test_error_high", [])]
    low = min([dense, *seen, *members.val_error, *members.get("test_error_low", [])])
    high = max([limit + 0.5 * (limit - dense), *(test for test in tests if math.isfinite(test))])
    if not len(members) and len(points):
        high = max(high, float(points.val_error.min()) + (limit - dense))
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return [0.0, 100.0]
    return [max(0.0, low - 0.08 * (high - low)), high]
