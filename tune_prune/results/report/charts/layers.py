"""Charts of single layers: what each keeps along the front, and what each does when it is pruned alone."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame

from tune_prune.results.front_picture import Level
from tune_prune.results.palette import LINES
from tune_prune.results.report.charts.style import (
    DASHES,
    add_levels,
    list_layers,
    make_factor_axis,
    make_percent_axis,
    style_figure,
)
from tune_prune.tasks.metrics import ERROR, Metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


MOST_LINES = 12
"""The most layers that are drawn as lines; more are drawn as a heat map."""


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
