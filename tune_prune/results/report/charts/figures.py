"""Makes the charts of a report's page: figures as data, plotly's library, and what a click on a point does."""

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pandas import DataFrame, isna

from tune_prune.results import conf
from tune_prune.results.front_picture import describe_front
from tune_prune.results.palette import DARK
from tune_prune.results.published import find_published
from tune_prune.results.report.charts import layers, search
from tune_prune.results.report.charts.front import draw_front, draw_tests
from tune_prune.results.report.charts.parallel import draw_trials
from tune_prune.results.report.charts.speed import draw_speed
from tune_prune.results.report.charts.style import list_layers
from tune_prune.results.run_results import RunResults, get_mapping, to_float
from tune_prune.tasks.metrics import ERROR, Metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


FindShares = Callable[[DataFrame, DataFrame, Metric], Mapping[str, float]]
"""The shares of parameters in how far from the front a trial ends, from trials.csv and pareto.csv."""

SCRIPT = Path(__file__).with_suffix(".js")
CLICKED = """<div id="clicked"><p>Click a point for its .conf.</p><pre hidden></pre>
<button type="button" hidden>Copy</button></div>"""


def has_plotly() -> bool:
    """Whether plotly is installed."""
    return find_spec("plotly") is not None


def make_charts(run: RunResults, others: Mapping[str, RunResults], find_shares: FindShares | None) -> dict[str, str]:
    """The HTML of each chart by its name, "scripts" among them; `others` are other runs by name."""
    shares = find_shares(run.trials, run.members, run.metric) if find_shares and len(run.trials) else {}
    figures = _draw_front(run, others) | _draw_search(run, others, shares)
    html = {name: f'<div class="chart" id="chart-{name}"></div>' for name in figures}
    if "front" in html:
        html["front"] += CLICKED
    data = {"layers": list_layers(run.points), "confs": run.confs, "units": list_units(run.trials)}
    html["scripts"] = make_scripts(figures, data)
    return html


def list_units(trials: DataFrame) -> dict[str, dict[str, object]]:
    """What the ratios of each trial count, by its number as text: what trials.csv has of `conf.UNITS`."""
    kept = trials[[name for name in conf.UNITS if name in trials]].astype(object)
    rows = zip(trials["trial"], kept.to_dict("records"), strict=True)
    return {str(trial): {str(name): value for name, value in row.items() if not isna(value)} for trial, row in rows}


def _draw_front(run: RunResults, others: Mapping[str, RunResults]) -> "dict[str, Figure]":
    """The front among all rounds, and its test results."""
    if not len(run.points):
        return {}
    measured, metric = get_mapping(run.summary, "dense"), run.metric
    dense, dense_test = to_float(measured.get(metric.val)), to_float(measured.get(metric.test))
    named = str(run.summary.get("model")), str(run.summary.get("data"))
    published = find_published(*named) if metric == ERROR else []
    fronts = {name: other.members for name, other in others.items()}
    picture = describe_front(
        run.points, run.members, run.limits.limit, dense, dense_test, metric, published=published,
        others=[*fronts.values()],
    )  # fmt: skip
    of_layers = list_layers(run.points)
    figures = {"front": draw_front(picture, of_layers, fronts)}
    if len(picture.tested) or published:
        figures["tests"] = draw_tests(picture, of_layers, published)
    return figures


def _draw_search(run: RunResults, others: Mapping[str, RunResults], shares: Mapping[str, float]) -> "dict[str, Figure]":
    """The charts that explain the front; `shares` are those of parameters, empty where unknown."""
    limits, metric, figures = run.limits, run.metric, {}
    if "latency" in run.points and run.points.latency.notna().any():
        figures["speed"] = draw_speed(run.points, run.members, limits)
    if len(run.members) and list_layers(run.members):
        figures["kept"] = layers.draw_kept(run.members)
    trials = draw_trials(run.trials, limits, [*shares])
    if trials is not None:
        figures["parallel"] = trials
    if shares:
        figures["importance"] = search.draw_shares(shares)
    if len(run.points) and limits.has_area:
        points = {name: other.points for name, other in others.items()}
        figures["hypervolume"] = search.draw_hypervolume(run.points, limits, points)
    if len(run.sensitivity):
        dense = to_float(get_mapping(run.summary, "dense").get(metric.val))
        figures["sensitivity"] = layers.draw_sensitivity(run.sensitivity, dense, metric)
    return figures


def make_scripts(figures: "Mapping[str, Figure]", data: Mapping[str, object]) -> str:
    """Plotly's library, the figures and the data, and the script that puts them on the page."""
    from plotly.offline import get_plotlyjs

    drawn = ", ".join(f'"{name}": {figure.to_json()}' for name, figure in figures.items())
    # half a surrogate pair has no place in JSON, nor has "<" in a script, where "</script" would end it
    content = f'{{"figures": {{{drawn}}}, "data": {json.dumps(data)}, "dark": {json.dumps(DARK)}}}'
    content = content.replace("<", "\\u003c")
    return (
        f"<script>{get_plotlyjs()}</script>\n"
        f'<script type="application/json" id="report">{content}</script>\n'
        f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>"
    )
