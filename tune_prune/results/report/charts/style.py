"""The look of every chart of a report: axes, levels, style."""

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from pandas import DataFrame

from tune_prune.pruning.plan import WEIGHTS
from tune_prune.results import axis_ranges, front_picture
from tune_prune.results.front_picture import Level
from tune_prune.results.palette import BLACK, GRID, PAPER, VEIL
from tune_prune.tasks.metrics import ERROR, Metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


DASHES = ("solid", "dash", "dot")


def list_layers(table: DataFrame) -> list[str]:
    """The layers whose ratios a table holds."""
    return [name.removeprefix("ratio/") for name in table.columns if name.startswith("ratio/")]


def describe_parameter(name: str) -> str:
    """A parameter of a space in words: `ratio/8` is the ratio of layer 8."""
    kind, _, layer = name.partition("/")
    if not layer:
        return {"lr": "learning rate (lr)"}.get(name, name.replace("_", " "))
    if layer.startswith(WEIGHTS):
        return f"{kind} of the weights of {layer.removeprefix(WEIGHTS)}"
    return f"ratio of layers {layer}" if kind == "group" else f"{kind} of layer {layer}"


def add_levels(figure: "Figure", levels: Sequence[Level], *, log: bool = False) -> None:
    """Adds labelled lines across; `log` where the axis of the metric is logarithmic."""
    for level in levels:
        if not math.isfinite(level.value) or (log and level.value <= 0):
            continue
        limit = level.name == "limit"
        figure.add_hline(y=level.value, line={"color": BLACK, "width": 1, "dash": "solid" if limit else "dash"})
        figure.add_annotation(
            x=0, xref="x domain", xanchor="left", y=math.log10(level.value) if log else level.value, showarrow=False,
            yanchor="bottom" if limit else "top", text=escape(level.label), font={"size": 11}, bgcolor=VEIL,
        )  # fmt: skip


def hover_value(metric: Metric, name: str = "y") -> str:
    """What plotly shows of a point's value: as many digits as `Metric.format`."""
    return f"%{{{name}:.2f}} %" if metric == ERROR else f"%{{{name}:.4g}}{escape(metric.unit)}"


def make_percent_axis() -> dict[str, Any]:
    """A logarithmic axis of percent."""
    marks = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]}


def make_factor_axis(right: float) -> dict[str, Any]:
    """A logarithmic axis of factors up to `right`."""
    marks = axis_ranges.factor_ticks(right)
    return {
        "title": front_picture.FACTOR_TITLE, "type": "log",
        "range": [math.log10(axis_ranges.LEFT), math.log10(right)],
        "tickvals": marks, "ticktext": [f"{mark:g}x" for mark in marks],
    }  # fmt: skip


def style_figure(figure: "Figure", height: int = 460) -> "Figure":
    """Gives a figure the look of all of them; `height` in pixels."""
    figure.update_layout(
        template="none", height=height, margin={"l": 64, "r": 16, "t": 8, "b": 48}, hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 13, "color": BLACK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        hoverlabel={"align": "left", "bgcolor": PAPER, "font": {"color": BLACK}},
        paper_bgcolor=PAPER, plot_bgcolor=PAPER,
    )  # fmt: skip
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True, title_standoff=6)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True, title_standoff=8)
    return figure
