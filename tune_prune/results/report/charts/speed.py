"""The chart of how fast the networks of a search are."""

from html import escape
from typing import TYPE_CHECKING

from pandas import DataFrame

from tune_prune.results import pareto
from tune_prune.results.constraints import MEASURED_LATENCY, Constraints
from tune_prune.results.palette import BLUE, ORANGE
from tune_prune.results.report.charts.style import hover_value, style_figure
from tune_prune.results.tables import read_judged

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


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
