"""The charts of a report that explain its front, as plotly figures."""

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame

from tune_prune import pareto
from tune_prune.chart_style import BLUE, DASHES, LINES, add_levels, factors, layers_of, percents, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


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
