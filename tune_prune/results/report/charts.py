"""What the charts of a report have in common: colours, axes, and the look of a plotly figure.

The charts of a report that explain its front, as plotly figures.
"""

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas import DataFrame

from tune_prune.results import pareto

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


# Okabe and Ito's colours, which tell apart for every kind of colour vision
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY, BLACK = "#8A8A8A", "#1A1A1A"
LINES = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK, GREY)
DASHES = ("solid", "dash", "dot")


def layers_of(table: DataFrame) -> list[str]:
    """The layers whose ratios a table holds."""
    return [name.removeprefix("ratio/") for name in table.columns if name.startswith("ratio/")]


def add_levels(figure: "Figure", levels: Mapping[str, float], *, log: bool = False) -> None:
    """Lines across at these errors in percent, with what they are called; `log` where that axis is logarithmic."""
    for name, error in levels.items():
        if not math.isfinite(error) or (log and error <= 0):
            continue
        limit = name == "limit"
        figure.add_hline(y=error, line={"color": BLACK, "width": 1, "dash": "solid" if limit else "dash"})
        figure.add_annotation(
            x=0, xref="x domain", xanchor="left", y=math.log10(error) if log else error, showarrow=False,
            yanchor="bottom" if limit else "top", text=f"{name} {error:.2f} %", font={"size": 11},
            bgcolor="rgba(255,255,255,.7)",
        )  # fmt: skip


def percents() -> dict[str, Any]:
    """A logarithmic axis of percent."""
    marks = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]}


def factors(right: float) -> dict[str, Any]:
    """A logarithmic axis of factors."""
    marks = [digit * 10**power for power in range(7) for digit in (1, 2, 5) if digit * 10**power <= 4 * right]
    return {
        "title": "times fewer weights", "type": "log", "range": [-0.03, math.log10(right)],
        "tickvals": marks, "ticktext": [f"{mark:g}x" for mark in marks],
    }  # fmt: skip


def styled(figure: "Figure", height: int = 460) -> "Figure":
    """The figure, as all of them look; `height` in pixels."""
    figure.update_layout(
        template="none", height=height, margin={"l": 64, "r": 16, "t": 16, "b": 60}, hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 13, "color": BLACK},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "font": {"size": 12}},
        hoverlabel={"align": "left", "bgcolor": "white"},
    )  # fmt: skip
    figure.update_xaxes(gridcolor="#E6E6E6", zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor="#E6E6E6", zeroline=False, automargin=True)
    return figure


MOST_LINES = 12
"""Layers that are drawn as lines; of more, colours say what they keep."""


def kept(members: DataFrame) -> "Figure":
    """What each layer keeps along the front, in percent of its weights."""
    import plotly.graph_objects as go

    layers = layers_of(members)
    shares = {layer: 100 * (1 - members[f"ratio/{layer}"].to_numpy(dtype=float)) for layer in layers}
    figure = go.Figure()
    if len(layers) > MOST_LINES:
        figure.add_heatmap(
            z=np.log10(np.maximum(np.stack(list(shares.values())), 1e-3)), x=[f"{f:.1f}x" for f in members.factor],
            y=[escape(layer) for layer in layers], colorscale="Cividis",
            colorbar={"title": "kept, %", "tickvals": [-2, -1, 0, 1, 2], "ticktext": ["0.01", "0.1", "1", "10", "100"]},
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed")
        return styled(figure, height=max(420, 90 + 16 * len(layers)))
    for number, (layer, share) in enumerate(shares.items()):
        figure.add_scatter(
            x=members.factor, y=share, mode="lines+markers", name=f"layer {escape(layer)}", marker={"size": 5},
            line={"color": LINES[number % len(LINES)], "dash": DASHES[number // len(LINES)]},
            hovertemplate="%{x:.1f}x: %{y:.3g} % kept",
        )  # fmt: skip
    figure.update_xaxes(factors(1.2 * float(members.factor.max())))
    figure.update_yaxes(title="kept, %", **percents())
    return styled(figure)


def volume(points: DataFrame, limit: float, others: Mapping[str, DataFrame]) -> "Figure":
    """Hypervolume after each trial, of this run and of others; `points` as points.csv."""
    import plotly.graph_objects as go

    figure = go.Figure()
    runs = {"this run": points, **others}
    for number, (name, table) in enumerate(runs.items()):
        trials, found = _volumes(table, limit)
        figure.add_scatter(
            x=trials, y=found, mode="lines", name=escape(name),
            line={"shape": "hv", "width": 1.2 if number else 2, "color": BLUE if not number else LINES[2 + number % 4]},
            hovertemplate="after %{x} trials: %{y:.4f}",
        )  # fmt: skip
    figure.update_xaxes(title="trials")
    figure.update_yaxes(title="hypervolume", rangemode="tozero")
    return styled(figure)


def volume_of(points: DataFrame, limit: float) -> float:
    """The hypervolume of points below a limit in percent; 0 where there is no such rectangle."""
    found = [*zip(points.compression.astype(float), points.val_error.astype(float), strict=True)]
    return pareto.hypervolume(found, limit) if limit > 0 and math.isfinite(limit) else 0.0


def _volumes(points: DataFrame, limit: float) -> tuple[list[int], list[float]]:
    """After which trials the hypervolume rose, and to what; and the last one."""
    best: list[pareto.Point] = []
    trials, found = [0], [0.0]
    for trial, rounds in points[points.feasible].groupby("trial"):
        new = [*zip(rounds.compression, rounds.val_error, strict=True)]
        merged = best + new
        best = [merged[i] for i in pareto.front(merged)]
        now = pareto.hypervolume(best, limit)
        if now > found[-1]:
            trials.append(int(str(trial)) + 1)
            found.append(now)
    last = int(points.trial.max()) + 1 if len(points) else 0
    return [*trials, last], [*found, found[-1]]


def bars(shares: Mapping[str, float]) -> "Figure":
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
    return styled(figure, height=120 + 26 * len(names))


def sensitivity(table: DataFrame, dense: float) -> "Figure":
    """Validation error over ratio, a line for each layer pruned alone; `table` as sensitivity.csv."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, ((layer, pruner), rows) in enumerate(table.groupby(["layer", "pruner"], sort=False)):
        rows = rows.sort_values("ratio")
        figure.add_scatter(
            x=rows.ratio, y=rows.val_error, mode="lines+markers", name=escape(f"layer {layer}, {pruner}"),
            line={"color": LINES[number % len(LINES)], "dash": DASHES[number // len(LINES) % 3]}, marker={"size": 4},
        )  # fmt: skip
    add_levels(figure, {"dense": dense}, log=True)
    figure.update_xaxes(title="removed from that layer alone")
    figure.update_yaxes(title="validation error, %", **percents())
    return styled(figure)
