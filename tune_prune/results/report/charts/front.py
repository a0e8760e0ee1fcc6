"""A report's first chart, as a plotly figure: every round of a search, the front, and what to compare it with."""

import csv
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pandas import DataFrame

from tune_prune.results.front_picture import FrontPicture
from tune_prune.results.palette import BLUE, GREEN, LINES, ORANGE
from tune_prune.results.report.charts.style import add_levels, hover_value, make_factor_axis, style_figure
from tune_prune.tasks.metrics import Metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


MARKERS = {
    "within": {"symbol": "circle", "size": 5},
    "stopped": {"symbol": "circle-open", "size": 6},
    "beyond": {"symbol": "x-thin-open", "size": 6},
}

MOST_HOVERED = 12
"""The most layers whose ratios a point shows when it is pointed at; its .conf has all of them."""

PUBLISHED = Path(__file__).with_name("published.csv")
"""Published results of unstructured pruning on MNIST, by built-in model."""


class Published(NamedTuple):
    """A published network: percent of the weights kept, no biases counted, and test error in percent.

    Mostly single runs, and many were chosen on test images.
    """

    work: str
    kept: float
    error: float


def find_published(model: str, data: str) -> list[Published]:
    """The published results for a model; none but for the built-in ones, on MNIST."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["model"], "mnist") == (model, data)]
    return [Published(row["work"], float(row["kept"]), float(row["error"])) for row in rows]


def draw_front(
    picture: FrontPicture, layers: Sequence[str], published: Sequence[Published], others: Mapping[str, DataFrame]
) -> "Figure":
    """The metric over factor: every round, the front among them, and what there is to compare them with.

    `layers` are those whose ratios the points have; `others` are the fronts of other runs by name, as pareto.csv.
    """
    import plotly.graph_objects as go

    figure, val = go.Figure(), picture.metric.val
    for series in picture.series:
        rounds = series.rounds
        figure.add_scattergl(
            x=rounds.factor.to_numpy(), y=rounds[val].to_numpy(), mode="markers",
            name=f"{series.name} ({len(rounds):,})", marker=MARKERS[series.kind] | {"color": series.colour},
            opacity=series.opacity, customdata=_numbers(rounds, layers), text=_pruners(rounds, layers),
            hovertemplate=_hover_text(layers, picture.metric),
        )  # fmt: skip
    for number, (name, other) in enumerate(others.items()):
        figure.add_scatter(
            x=other.factor, y=other[val], mode="lines+markers", name=escape(name), marker={"size": 4},
            line={"shape": "vh", "width": 1.2, "dash": "dot", "color": LINES[3 + number % 3]},
        )  # fmt: skip
    _add_members(figure, picture, layers)
    if published:
        figure.add_scatter(
            x=[100 / one.kept for one in published], y=[one.error for one in published], mode="markers",
            name="published, test error", marker={"symbol": "star", "size": 9, "color": GREEN},
            text=[escape(one.work) for one in published],
            hovertemplate="%{text}<br>%{x:.1f}x, %{y:.2f} %<extra></extra>",
        )  # fmt: skip
    add_levels(figure, picture.levels)
    figure.update_xaxes(make_factor_axis(picture.factors[1]))
    figure.update_yaxes(title=escape(picture.metric.title), range=picture.values)
    return style_figure(figure)


def _add_members(figure: "Figure", picture: FrontPicture, layers: Sequence[str]) -> None:
    """Adds the front as steps, each at the metric of the next member to the right; and test results."""
    members, tested, metric = picture.members, picture.tested, picture.metric
    if not len(members):
        return
    start = [values[:2] for values in picture.line]  # from factor 1 to the first member: no point to hover over
    figure.add_scatter(
        x=start[0], y=start[1], mode="lines", name="front", legendgroup="front", showlegend=False, hoverinfo="skip",
        line={"shape": "vh", "width": 2, "color": BLUE},
    )  # fmt: skip
    figure.add_scatter(
        x=members.factor, y=picture.heights, mode="lines+markers", name=escape(picture.front_name),
        legendgroup="front",
        line={"shape": "vh", "width": 2, "color": BLUE}, marker={"size": 8, "color": BLUE},
        customdata=_numbers(members, layers), text=_pruners(members, layers), ids=[str(one) for one in members.id],
        hovertemplate=_hover_text(layers, metric),
    )  # fmt: skip
    if len(tested):
        figure.add_scatter(
            x=tested.factor, y=tested[metric.test], mode="markers", name=escape(picture.test_name),
            marker={"symbol": "diamond-open", "size": 7, "color": ORANGE},
            error_y={"type": "data", "array": tested.up, "arrayminus": tested.down, "width": 0, "thickness": 1},
            ids=[str(one) for one in tested.id],
            hovertemplate=f"%{{x:.1f}}x, {hover_value(metric)} on test images<extra></extra>",
        )  # fmt: skip


def _numbers(table: DataFrame, layers: Sequence[str]) -> np.ndarray:
    """What a point shows and its .conf is made of: trial, round, and a ratio a layer; float32 [points, 2 + layers]."""
    columns = ["trial", "round", *(f"ratio/{layer}" for layer in layers)]
    return table.reindex(columns=columns).to_numpy(dtype=np.float32)


def _pruners(table: DataFrame, layers: Sequence[str]) -> list[str]:
    """The pruners of each point's layers, one name where all agree; escaped, for plotly reads HTML."""
    columns = [f"pruner/{layer}" for layer in layers if f"pruner/{layer}" in table]
    rows = table[columns].astype(object).where(table[columns].notna(), "").astype(str).to_numpy()
    return [escape(row[0] if len(set(row)) == 1 else ",".join(row)) if len(row) else "" for row in rows]


def _hover_text(layers: Sequence[str], metric: Metric) -> str:
    shown = [f"{escape(layer)}: %{{customdata[{2 + i}]:.4g}}" for i, layer in enumerate(layers[:MOST_HOVERED])]
    more = [f"and {len(layers) - MOST_HOVERED} layers"] if len(layers) > MOST_HOVERED else []
    value = f"<b>%{{x:.1f}}x</b>, {hover_value(metric)}"
    head = [value, "trial %{customdata[0]}, round %{customdata[1]}", "%{text}, removed in"]
    return "<br>".join([*head, *shown, *more]) + "<extra></extra>"
