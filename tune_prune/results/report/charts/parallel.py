"""The chart of all trials as lines across their parameters and results (parallel coordinates)."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas import DataFrame, Series, api

from tune_prune.results.constraints import Constraints
from tune_prune.results.palette import BLUE, GREY
from tune_prune.results.report.charts.style import describe_parameter, style_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


MOST_PARAMETERS = 8
"""The most parameters that have an axis of their own."""

MOST_TEXTS = 12
"""A parameter of more different texts has no axis."""

MOST_TICKS = 5
"""The most ticks of a linear axis."""

MIN_TRIALS = 3


def draw_trials(trials: DataFrame, limits: Constraints, important: Sequence[str]) -> "Figure | None":
    """A line a trial, across its last point and its parameters, the important ones first; None where there are too few.

    `trials` as trials.csv. Parameters that all have alike, or that some trials lack, have no axis.
    """
    import plotly.graph_objects as go

    metric = limits.metric
    names = [str(name) for name in trials.columns]
    ended = trials[trials[metric.val].notna() & (trials.compression.astype(float) < 1)]
    if len(ended) < MIN_TRIALS or "compression" not in names:
        return None
    params = names[names.index("state") + 1 : names.index("compression")]
    chosen = [name for name in dict.fromkeys([*important, *params]) if name in params]
    axes = [axis for name in chosen if (axis := _make_axis(ended[name], name)) is not None][:MOST_PARAMETERS]
    if not axes:
        return None
    factors = 1 / (1 - ended.compression.astype(float))
    results = [
        _scale(factors, "times fewer weights", log=True, unit="x"),
        _scale(ended[metric.val].astype(float), f"validation {metric.title}", log=True),
    ]
    within = ended.feasible.astype(str) == "True" if "feasible" in names else ended.state == "complete"
    figure = go.Figure(
        go.Parcoords(
            dimensions=[*results, *axes], labelangle=-12,
            line={
                "color": within.astype(int).tolist(), "cmin": 0, "cmax": 1, "colorscale": [[0, GREY], [1, BLUE]],
            },
        )
    )  # fmt: skip
    style_figure(figure, height=420)
    figure.update_layout(margin={"l": 76, "r": 40, "t": 64, "b": 16})
    return figure


def _make_axis(column: "Series[Any]", name: str) -> dict[str, Any] | None:
    """The axis of a parameter: of ratios what is kept, on a logarithmic scale; None where it would say nothing."""
    if column.isna().any() or column.nunique() < 2:
        return None
    label = describe_parameter(name)
    if not api.types.is_numeric_dtype(column) or api.types.is_bool_dtype(column):
        texts = sorted(map(str, column.unique()))
        if len(texts) > MOST_TEXTS:
            return None
        places = {text: place for place, text in enumerate(texts)}
        values = [places[str(value)] for value in column]
        return {"label": escape(label), "values": values, "tickvals": [*places.values()], "ticktext": texts}
    if name.startswith(("ratio/", "group/")):
        return _scale(100 * (1 - column.astype(float)), f"kept, %: {label.removeprefix('ratio of ')}", log=True)
    return _scale(column.astype(float), label, log=bool((column > 0).all() and column.max() > 20 * column.min()))


def _scale(values: "Series[float]", label: str, *, log: bool, unit: str = "") -> dict[str, Any]:
    """An axis of numbers with ticks; a logarithmic one is linear where a number is not positive."""
    low, high = float(values.min()), float(values.max())
    if not log or low <= 0:
        ticks = sorted(values.unique()) if values.nunique() <= MOST_TICKS else np.linspace(low, high, MOST_TICKS)
        return {"label": escape(label), "values": values.tolist(), **_make_ticks(ticks, ticks, unit)}
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
    ticks = found if len(found) > 1 else [low, high]
    return {"label": escape(label), "values": np.log10(values).tolist(), **_make_ticks(np.log10(ticks), ticks, unit)}


def _make_ticks(places: Iterable[float], numbers: Iterable[float], unit: str) -> dict[str, Any]:
    return {"tickvals": [float(place) for place in places], "ticktext": [f"{one:.3g}{unit}" for one in numbers]}
