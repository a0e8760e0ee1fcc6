"""What the charts of a report have in common: colours, axes, and the look of a plotly figure."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pandas import DataFrame

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
