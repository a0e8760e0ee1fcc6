"""Makes the charts of a report's page: figures as data, plotly's library, and what a click on a point does."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pandas import DataFrame

from tune_prune.results.front_picture import describe_front
from tune_prune.results.report.charts import layers, search
from tune_prune.results.report.charts.front import draw_front, find_published
from tune_prune.results.report.charts.speed import draw_speed
from tune_prune.results.report.charts.style import list_layers
from tune_prune.results.report.page import make_table
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
    figures = _draw_figures(run, others)
    shares = find_shares(run.trials, run.members, run.metric) if find_shares and len(run.trials) else {}
    if shares:
        figures["importance"] = search.draw_shares(shares)
    html = {name: f'<div class="chart" id="chart-{name}"></div>' for name in figures}
    if "front" in html:
        html["front"] += CLICKED
    if others:
        html["comparison"] = _compare_runs(run, others)
    html["scripts"] = _scripts(figures, {"layers": list_layers(run.points), "confs": run.confs})
    return html


def _draw_figures(run: RunResults, others: Mapping[str, RunResults]) -> "dict[str, Figure]":
    limits, measured, metric = run.limits, get_mapping(run.summary, "dense"), run.metric
    dense, dense_test = to_float(measured.get(metric.val)), to_float(measured.get(metric.test))
    figures = {}
    if len(run.points):
        picture = describe_front(run.points, run.members, limits.limit, dense, dense_test, metric)
        named = str(run.summary.get("model")), str(run.summary.get("data"))
        published = find_published(*named) if metric == ERROR else []
        fronts = {name: other.members for name, other in others.items()}
        figures["front"] = draw_front(picture, list_layers(run.points), published, fronts)
    if "latency" in run.points and run.points.latency.notna().any():
        figures["speed"] = draw_speed(run.points, run.members, limits)
    if len(run.members) and list_layers(run.members):
        figures["kept"] = layers.draw_kept(run.members)
    if len(run.points) and limits.has_area:
        points = {name: other.points for name, other in others.items()}
        figures["hypervolume"] = search.draw_hypervolume(run.points, limits, points)
    if len(run.sensitivity):
        figures["sensitivity"] = layers.draw_sensitivity(run.sensitivity, dense, metric)
    return figures


def _compare_runs(run: RunResults, others: Mapping[str, RunResults]) -> str:
    """A table of what this run and others reached, each within this run's limit."""
    limits, cost = run.limits, run.metric.cost(1.0)
    rows = []
    for name, one in {"this run": run, **others}.items():
        best = one.members[cost * one.members[run.metric.val] <= limits.max_cost]
        most = f"{best.factor.max():.1f}x" if len(best) else "nothing"
        volume = search.hypervolume_within(one.members, limits)
        spent = one.trials.cpu_seconds.sum() if "cpu_seconds" in one.trials else math.nan
        rows.append([escape(name), str(len(one.trials)), f"{spent:.0f} s", f"{volume:.4f}", most])
    head = ["", "trials", "processor time of trials", "hypervolume", "most compressed"]
    return f'<div class="wide">{make_table(head, rows)}</div>'


def _scripts(figures: "Mapping[str, Figure]", data: Mapping[str, object]) -> str:
    """Plotly's library, the figures and the data, and the script that puts them on the page."""
    from plotly.offline import get_plotlyjs

    drawn = ", ".join(f'"{name}": {figure.to_json()}' for name, figure in figures.items())
    # half a surrogate pair has no place in JSON, nor has "<" in a script, where "</script" would end it
    content = f'{{"figures": {{{drawn}}}, "data": {json.dumps(data)}}}'.replace("<", "\\u003c")
    return (
        f"<script>{get_plotlyjs()}</script>\n"
        f'<script type="application/json" id="report">{content}</script>\n'
        f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>"
    )


def name_runs(compare: Sequence[Path]) -> dict[str, Path]:
    """The directories of other runs by name: the last part of the path, or all of it where that is taken."""
    named: dict[str, Path] = {}
    for path in compare:
        named[path.name if path.name not in named else str(path)] = path
    return named
