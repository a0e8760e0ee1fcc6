"""Charts of the search itself: its hypervolume trial by trial, and what its parameters decide."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from pandas import DataFrame

from tune_prune.results import pareto
from tune_prune.results.comparison import list_pairs
from tune_prune.results.constraints import Constraints
from tune_prune.results.palette import BLUE, LINES
from tune_prune.results.report.charts.style import describe_parameter, style_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def draw_hypervolume(
    points: DataFrame, limits: Constraints, others: Mapping[str, DataFrame], name: str = "this run"
) -> "Figure":
    """The hypervolume after each trial, of a run with this `name` and of others; `points` as points.csv."""
    import plotly.graph_objects as go

    figure = go.Figure()
    runs = {name: points, **others}
    for number, (run, table) in enumerate(runs.items()):
        trials, volumes = _hypervolumes(table, limits)
        figure.add_scatter(
            x=trials, y=volumes, mode="lines", name=escape(run),
            line={"shape": "hv", "width": 1.2 if number else 2, "color": LINES[number % len(LINES)]},
            hovertemplate="after %{x} trials: %{y:.4f}",
        )  # fmt: skip
    figure.update_xaxes(title="trials")
    figure.update_yaxes(title="hypervolume", rangemode="tozero")
    return style_figure(figure)


def _hypervolumes(points: DataFrame, limits: Constraints) -> tuple[list[int], list[float]]:
    """The numbers of trials after which the hypervolume rose, and its values then; last, after all trials."""
    front: list[pareto.Point] = []
    trials, volumes = [0], [0.0]
    for trial, rounds in points[points.feasible].groupby("trial"):
        merged = [*front, *list_pairs(rounds, limits.metric)]
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
            x=[100 * shares[name] for name in names],
            y=[f"{escape(describe_parameter(name))} " for name in names], orientation="h",
            marker={"color": BLUE}, hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="share, %", rangemode="tozero")
    return style_figure(figure, height=120 + 26 * len(names))
