"""A report's first charts, as plotly figures: every round of a search, the front among them, and its test results."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas import DataFrame

from tune_prune.results.front_picture import FrontPicture, Mark, find_steps
from tune_prune.results.palette import BLUE, GREEN, GREY, LINES, ORANGE, VEIL
from tune_prune.results.published import Published
from tune_prune.results.report.charts.labels import place_labels
from tune_prune.results.report.charts.style import add_levels, hover_value, make_factor_axis, style_figure
from tune_prune.tasks.metrics import Metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


MARKERS = {
    "within": {"symbol": "circle", "size": 5},
    "stopped": {"symbol": "circle-open", "size": 6},
    "beyond": {"symbol": "x-thin-open", "size": 6},
    "far": {"symbol": "triangle-up-open", "size": 7},
}

MOST_HOVERED = 12
"""The most layers whose ratios a point shows when it is pointed at; its .conf has all of them."""


def draw_front(picture: FrontPicture, layers: Sequence[str], others: Mapping[str, DataFrame]) -> "Figure":
    """The metric on validation data over factor: every round, and the front among them.

    `layers` are those whose ratios the points have; `others` are the fronts of other runs by name, as pareto.csv.
    """
    import plotly.graph_objects as go

    figure, metric = go.Figure(), picture.metric
    for series in picture.series:
        rounds = series.rounds
        marker = MARKERS[series.kind] | {"color": series.colour}
        if series.kind == "far" and metric.better == "higher":
            marker["symbol"] = "triangle-down-open"
        figure.add_scattergl(
            x=series.x, y=series.y, mode="markers", name=f"{series.name} ({len(rounds):,})", marker=marker,
            opacity=series.opacity, customdata=_numbers(rounds, layers, metric), text=_pruners(rounds, layers),
            hovertemplate=_hover_text(layers, metric),
        )  # fmt: skip
    for number, (name, other) in enumerate(others.items()):
        factors, values = find_steps(other, metric)
        figure.add_scatter(
            x=factors, y=values, mode="lines+markers", name=escape(name), marker={"size": 4},
            line={"shape": "vh", "width": 1.2, "dash": "dot", "color": LINES[3 + number % 3]},
        )  # fmt: skip
    _add_members(figure, picture, layers)
    add_levels(figure, picture.levels)
    heights = dict(zip(map(str, picture.members.id), picture.heights, strict=True)) if len(picture.members) else {}
    _add_marks(figure, picture, picture.members, heights)
    figure.update_xaxes(make_factor_axis(picture.factors[1]))
    figure.update_yaxes(title=f"validation {escape(metric.title)}", range=picture.values)
    return style_figure(figure)


def draw_tests(picture: FrontPicture, layers: Sequence[str], published: Sequence[Published]) -> "Figure":
    """The metric on test data over factor: the front with its intervals, and published results by name."""
    import plotly.graph_objects as go

    figure, metric, tested = go.Figure(), picture.metric, picture.tested
    if len(tested):
        figure.add_scatter(
            x=tested.factor, y=tested[metric.test], mode="markers", name=escape(picture.test_name),
            marker={"symbol": "diamond", "size": 8, "color": ORANGE}, cliponaxis=False,
            error_y={
                "type": "data", "array": tested.up, "arrayminus": tested.down, "width": 0, "thickness": 1,
                "color": ORANGE,
            },
            customdata=_numbers(tested, layers, metric), text=_pruners(tested, layers),
            ids=[str(one) for one in tested.id],
            hovertemplate=f"<b>%{{x:.1f}}x</b>, {hover_value(metric)} on test data<extra></extra>",
        )  # fmt: skip
    if published:
        found, names = [(one.factor, one.error) for one in published], [escape(one.work) for one in published]
        taken = [*found, *zip(tested.factor, tested[metric.test], strict=True)]
        places = place_labels([one.work for one in published], found, taken, picture.factors, picture.test_values)
        figure.add_scatter(
            x=[x for x, _ in found], y=[y for _, y in found], mode="markers+text", name="published, test error",
            marker={"symbol": "star", "size": 9, "color": GREEN}, cliponaxis=False, textfont={"size": 11},
            text=[f"&nbsp;{name}&nbsp;" if place else "" for name, place in zip(names, places, strict=True)],
            textposition=[place or "top center" for place in places], hovertext=names,
            hovertemplate="%{hovertext}<br>%{x:.1f}x, %{y:.2f} %<extra></extra>",
        )  # fmt: skip
    add_levels(figure, picture.test_levels)
    _add_marks(figure, picture, tested, dict(zip(map(str, tested.id), picture.test_reach, strict=True)))
    figure.update_xaxes(make_factor_axis(picture.factors[1]))
    figure.update_yaxes(title=f"test {escape(metric.title)}", range=picture.test_values)
    return style_figure(figure, height=360)


def _add_members(figure: "Figure", picture: FrontPicture, layers: Sequence[str]) -> None:
    """Adds the front as steps, each at the metric of the next member to the right."""
    members, metric = picture.members, picture.metric
    if not len(members):
        return
    figure.add_scatter(
        x=picture.line[0], y=picture.line[1], mode="lines", name="front", legendgroup="front", showlegend=False,
        line={"shape": "vh", "width": 2, "color": BLUE}, hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=members.factor, y=picture.heights, mode="markers", name=escape(picture.front_name), legendgroup="front",
        marker={"size": 8, "color": BLUE}, cliponaxis=False,
        customdata=_numbers(members, layers, metric), text=_pruners(members, layers),
        ids=[str(one) for one in members.id], hovertemplate=_hover_text(layers, metric),
    )  # fmt: skip


def _add_marks(figure: "Figure", picture: FrontPicture, table: DataFrame, heights: Mapping[str, float]) -> None:
    """Names the members that the picture marks, below their `heights`, which are by id."""
    factors = dict(zip(map(str, table.id), table.factor, strict=True)) if len(table) else {}
    for mark in picture.marks:
        if mark.id not in heights:
            continue
        side = picture.find_side(factors[mark.id])
        figure.add_annotation(
            x=float(np.log10(factors[mark.id])), y=heights[mark.id], text=f"<b>{_describe(mark, factors)}</b>",
            showarrow=True, arrowhead=0,
            arrowwidth=1, arrowcolor=GREY, standoff=5, ax={"left": -16, "center": -24, "right": 20}[side],
            ay=34 if picture.metric.better == "lower" else -34, bgcolor=VEIL, font={"size": 12},
            xanchor=side,
        )  # fmt: skip


def _describe(mark: Mark, factors: Mapping[str, float]) -> str:
    return f"{mark.name} {factors[mark.id]:.1f}x"


def _numbers(table: DataFrame, layers: Sequence[str], metric: Metric) -> np.ndarray:
    """What a point shows and its .conf is made of; float32 [points, 4 + layers].

    Trial, round, factor, validation metric, and a ratio a layer.
    """
    columns = ["trial", "round", "factor", metric.val, *(f"ratio/{layer}" for layer in layers)]
    return table.reindex(columns=columns).to_numpy(dtype=np.float32)


def _pruners(table: DataFrame, layers: Sequence[str]) -> list[str]:
    """The pruners of each point's layers, one name where all agree; escaped, for plotly reads HTML."""
    columns = [f"pruner/{layer}" for layer in layers if f"pruner/{layer}" in table]
    rows = table[columns].astype(object).where(table[columns].notna(), "").astype(str).to_numpy()
    return [escape(row[0] if len(set(row)) == 1 else ",".join(row)) if len(row) else "" for row in rows]


def _hover_text(layers: Sequence[str], metric: Metric) -> str:
    shown = [f"{escape(layer)}: %{{customdata[{4 + i}]:.4g}}" for i, layer in enumerate(layers[:MOST_HOVERED])]
    more = [f"and {len(layers) - MOST_HOVERED} layers"] if len(layers) > MOST_HOVERED else []
    value = f"<b>%{{customdata[2]:.1f}}x</b>, {hover_value(metric, 'customdata[3]')}"
    head: list[Any] = [value, "trial %{customdata[0]}, round %{customdata[1]}", "%{text}, removed in"]
    return "<br>".join([*head, *shown, *more]) + "<extra></extra>"
