"""The charts of the fronts of several runs, as plotly figures: on validation data, and on test data."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from tune_prune.results.constraints import Constraints
from tune_prune.results.front_picture import Level, find_steps
from tune_prune.results.palette import LINES
from tune_prune.results.report.charts.style import DASHES, add_levels, hover_value, make_factor_axis, style_figure
from tune_prune.results.run_results import RunResults
from tune_prune.results.tables import read_judged

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def draw_fronts(runs: Mapping[str, RunResults], limits: Constraints) -> "Figure":
    """The front of each run by name, as steps, by the estimates by which it ascends."""
    import plotly.graph_objects as go

    figure, metric = go.Figure(), limits.metric
    for number, (name, run) in enumerate(runs.items()):
        colour, dash = LINES[number % len(LINES)], DASHES[number // len(LINES) % len(DASHES)]
        factors, values = find_steps(run.members, metric)
        figure.add_scatter(
            x=factors, y=values, mode="lines", legendgroup=name, showlegend=False, hoverinfo="skip",
            line={"shape": "vh", "width": 2, "color": colour, "dash": dash},
        )  # fmt: skip
        figure.add_scatter(
            x=run.members.factor, y=read_judged(run.members, metric), mode="markers", name=escape(name),
            legendgroup=name, marker={"size": 6, "color": colour}, cliponaxis=False,
            text=[escape(str(one)) for one in run.members.id],
            hovertemplate=f"<b>%{{x:.1f}}x</b>, {hover_value(metric)}<br>member %{{text}}",
        )  # fmt: skip
    add_levels(figure, [Level("limit", limits.limit, metric)])
    figure.update_xaxes(make_factor_axis(_find_right(runs)))
    figure.update_yaxes(title=f"validation {escape(metric.title)}")
    return style_figure(figure)


def draw_test_fronts(runs: Mapping[str, RunResults], limits: Constraints) -> "Figure | None":
    """The test results of each run's front, with their intervals; None where there are none."""
    import plotly.graph_objects as go

    figure, metric = go.Figure(), limits.metric
    for number, (name, run) in enumerate(runs.items()):
        if metric.test not in run.members or not run.members[metric.test].notna().any():
            continue
        tested = run.members[run.members[metric.test].notna()]
        colour = LINES[number % len(LINES)]
        ends = {end: tested.get(f"{metric.test}_{end}", np.nan) for end in ("low", "high")}
        figure.add_scatter(
            x=tested.factor, y=tested[metric.test], mode="markers", name=escape(name), cliponaxis=False,
            marker={"size": 7, "color": colour, "symbol": "diamond"}, text=[str(one) for one in tested.id],
            error_y={
                "type": "data", "array": ends["high"] - tested[metric.test], "color": colour,
                "arrayminus": tested[metric.test] - ends["low"], "width": 0, "thickness": 1,
            },
            hovertemplate=f"<b>%{{x:.1f}}x</b>, {hover_value(metric)}<br>member %{{text}}",
        )  # fmt: skip
    if not figure.data:
        return None
    figure.update_xaxes(make_factor_axis(_find_right(runs)))
    figure.update_yaxes(title=f"test {escape(metric.title)}")
    return style_figure(figure, height=360)


def _find_right(runs: Mapping[str, RunResults]) -> float:
    return 1.25 * max([8.0, *(float(factor) for run in runs.values() for factor in run.members.factor)])
