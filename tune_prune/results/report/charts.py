"""The charts that explain a report's front, as plotly figures, and the look of every chart: axes, levels, style."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas import DataFrame

from tune_prune.results import front_picture, pareto
from tune_prune.results.constraints import MEASURED_LATENCY, Constraints
from tune_prune.results.front_picture import Level
from tune_prune.results.palette import BLACK, BLUE, GRID, LINES, ORANGE
from tune_prune.results.tables import read_judged
from tune_prune.tasks.metrics import ERROR, Metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


DASHES = ("solid", "dash", "dot")

MOST_LINES = 12
"""The most layers that are drawn as lines; more are drawn as a heat map."""


def list_layers(table: DataFrame) -> list[str]:
    """The layers whose ratios a table holds."""
    return [name.removeprefix("ratio/") for name in table.columns if name.startswith("ratio/")]


def add_levels(figure: "Figure", levels: Sequence[Level], *, log: bool = False) -> None:
    """Adds labelled lines across; `log` where the axis of the metric is logarithmic."""
    for level in levels:
        if not math.isfinite(level.value) or (log and level.value <= 0):
            continue
        limit = level.name == "limit"
        figure.add_hline(y=level.value, line={"color": BLACK, "width": 1, "dash": "solid" if limit else "dash"})
        figure.add_annotation(
            x=0, xref="x domain", xanchor="left", y=math.log10(level.value) if log else level.value, showarrow=False,
            yanchor="bottom" if limit else "top", text=f"{level.label} {level.note}".strip(), font={"size": 11},
            bgcolor="rgba(255,255,255,.7)",
        )  # fmt: skip


def hover_value(metric: Metric) -> str:
    """What plotly shows of a point's value: as many digits as `Metric.format`."""
    return "%{y:.2f} %" if metric == ERROR else f"%{{y:.4g}}{escape(metric.unit)}"


def make_percent_axis() -> dict[str, Any]:
    """A logarithmic axis of percent."""
    marks = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]}


def make_factor_axis(right: float) -> dict[str, Any]:
    """A logarithmic axis of factors up to `right`."""
    marks = front_picture.factor_marks(right)
    return {
        "title": front_picture.FACTOR_TITLE, "type": "log",
        "range": [math.log10(front_picture.LEFT), math.log10(right)],
        "tickvals": marks, "ticktext": [f"{mark:g}x" for mark in marks],
    }  # fmt: skip


def style_figure(figure: "Figure", height: int = 460) -> "Figure":
    """Gives a figure the look of all of them; `height` in pixels."""
    figure.update_layout(
        template="none", height=height, margin={"l": 64, "r": 16, "t": 16, "b": 60}, hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 13, "color": BLACK},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "font": {"size": 12}},
        hoverlabel={"align": "left", "bgcolor": "white"},
    )  # fmt: skip
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
    return figure


def draw_speed(points: DataFrame, members: DataFrame, limits: Constraints) -> "Figure":
    """The metric over how many times as fast as the dense model a network is: rounds within the limit, and the front.

    By the predicted latency; of the front also by the measured one, where there is one.
    """
    import plotly.graph_objects as go

    figure, metric = go.Figure(), limits.metric
    within = points[points.feasible & points.latency.notna()]
    figure.add_scattergl(
        x=1 / within.latency, y=within[metric.val], mode="markers", name="round within the limit, predicted",
        marker={"size": 5, "color": BLUE}, opacity=0.4, customdata=within[["trial", "round", "factor"]],
        hovertemplate=f"<b>%{{x:.2f}} times as fast</b>, {hover_value(metric)}<br>trial %{{customdata[0]}}, round "
        "%{customdata[1]}, %{customdata[2]:.1f}x fewer weights<extra></extra>",
    )  # fmt: skip
    pairs = [*zip(-within.latency, metric.cost(1.0) * read_judged(within, metric), strict=True)]
    best = within.iloc[pareto.front(pairs)].sort_values("latency", ascending=False)
    figure.add_scatter(
        x=1 / best.latency, y=read_judged(best, metric), mode="lines", name="the fastest at each value",
        line={"shape": "vh", "width": 2, "color": BLUE}, hoverinfo="skip",
    )  # fmt: skip
    if MEASURED_LATENCY in members:
        figure.add_scatter(
            x=1 / members[MEASURED_LATENCY], y=members[metric.val], mode="markers", name="the front, measured",
            marker={"symbol": "diamond-open", "size": 8, "color": ORANGE}, text=members.id,
            hovertemplate=f"<b>%{{text}}: %{{x:.2f}} times as fast</b>, {hover_value(metric)}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="times as fast as the dense model", ticksuffix="x")
    figure.update_yaxes(title=f"validation {escape(metric.title)}")
    return style_figure(figure)


def draw_kept(members: DataFrame) -> "Figure":
    """The share of its weights that each layer keeps along the front, in percent."""
    import plotly.graph_objects as go

    layers = list_layers(members)
    shares = {layer: 100 * (1 - members[f"ratio/{layer}"].to_numpy(dtype=float)) for layer in layers}
    figure = go.Figure()
    if len(layers) > MOST_LINES:
        figure.add_heatmap(
            z=np.log10(np.maximum(np.stack(list(shares.values())), 1e-3)), x=[f"{f:.1f}x" for f in members.factor],
            y=[escape(layer) for layer in layers], colorscale="Cividis",
            colorbar={"title": "kept, %", "tickvals": [-2, -1, 0, 1, 2], "ticktext": ["0.01", "0.1", "1", "10", "100"]},
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed")
        return style_figure(figure, height=max(420, 90 + 16 * len(layers)))
    for number, (layer, share) in enumerate(shares.items()):
        figure.add_scatter(
            x=members.factor, y=share, mode="lines+markers", name=f"layer {escape(layer)}", marker={"size": 5},
            line={"color": LINES[number % len(LINES)], "dash": DASHES[number // len(LINES)]},
            hovertemplate="%{x:.1f}x: %{y:.3g} % kept",
        )  # fmt: skip
    figure.update_xaxes(make_factor_axis(1.2 * float(members.factor.max())))
    figure.update_yaxes(title="kept, %", **make_percent_axis())
    return style_figure(figure)


def draw_hypervolume(points: DataFrame, limits: Constraints, others: Mapping[str, DataFrame]) -> "Figure":
    """The hypervolume after each trial, of this run and of others; `points` as points.csv."""
    import plotly.graph_objects as go

    figure = go.Figure()
    runs = {"this run": points, **others}
    for number, (name, table) in enumerate(runs.items()):
        trials, volumes = _hypervolumes(table, limits)
        figure.add_scatter(
            x=trials, y=volumes, mode="lines", name=escape(name),
            line={"shape": "hv", "width": 1.2 if number else 2, "color": BLUE if not number else LINES[2 + number % 4]},
            hovertemplate="after %{x} trials: %{y:.4f}",
        )  # fmt: skip
    figure.update_xaxes(title="trials")
    figure.update_yaxes(title="hypervolume", rangemode="tozero")
    return style_figure(figure)


def hypervolume_within(points: DataFrame, limits: Constraints) -> float:
    """The hypervolume of points within the limit; 0 where that is unknown, or leaves no area."""
    return limits.hypervolume(_list_pairs(points, limits.metric)) if math.isfinite(limits.limit) else 0.0


def _list_pairs(points: DataFrame, metric: Metric) -> list[pareto.Point]:
    """(compression, metric as a cost) of each point, by the metric's estimate where there is one."""
    costs = metric.cost(1.0) * read_judged(points, metric)
    return [*zip(points.compression.astype(float), costs, strict=True)]


def _hypervolumes(points: DataFrame, limits: Constraints) -> tuple[list[int], list[float]]:
    """The numbers of trials after which the hypervolume rose, and its values then; last, after all trials."""
    front: list[pareto.Point] = []
    trials, volumes = [0], [0.0]
    for trial, rounds in points[points.feasible].groupby("trial"):
        merged = [*front, *_list_pairs(rounds, limits.metric)]
        front = [merged[i] for i in pareto.front(merged)]
        volume = limits.hypervolume(front)
        if volume > volumes[-1]:
            trials.append(int(str(trial)) + 1)
            volumes.append(volume)
    last = int(points.trial.max()) + 1 if len(points) else 0
    return [*trials, last], [*volumes, volumes[-1]]


def draw_shares(shares: Mapping[str, float]) -> "Figure":
    """Shares that add up to one, the greatest on top."""
    import plotly.graph_objects as go

    names = sorted(shares, key=lambda name: shares[name])
    figure = go.Figure(
        go.Bar(
            x=[100 * shares[name] for name in names], y=[f"{escape(name)} " for name in names], orientation="h",
            marker={"color": BLUE}, hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="share, %", rangemode="tozero")
    return style_figure(figure, height=120 + 26 * len(names))


def draw_sensitivity(table: DataFrame, dense: float, metric: Metric = ERROR) -> "Figure":
    """The validation metric over ratio, a line for each layer pruned alone; `table` as sensitivity.csv.

    `dense` is the dense model's value, NaN where unknown. The axis of another metric than the error is logarithmic only
    where all values are positive.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, ((layer, pruner), rows) in enumerate(table.groupby(["layer", "pruner"], sort=False)):
        rows = rows.sort_values("ratio")
        figure.add_scatter(
            x=rows.ratio, y=rows[metric.val], mode="lines+markers", name=escape(f"layer {layer}, {pruner}"),
            line={"color": LINES[number % len(LINES)], "dash": DASHES[number // len(LINES) % 3]}, marker={"size": 4},
        )  # fmt: skip
    log = metric == ERROR or bool((table[metric.val] > 0).all() and not dense <= 0)
    add_levels(figure, [Level("dense", dense, metric=metric)], log=log)
    figure.update_xaxes(title="removed from that layer alone")
    axis = make_percent_axis() if metric == ERROR else {"type": "log" if log else "linear"}
    figure.update_yaxes(title=f"validation {escape(metric.title)}", **axis)
    return style_figure(figure)
