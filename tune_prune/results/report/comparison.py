"""Makes the page that shows the fronts of several runs: one file that loads nothing from elsewhere."""

import base64
from collections.abc import Mapping
from html import escape

from tune_prune.common.entrypoints import describe_address
from tune_prune.results.comparison import compare_runs
from tune_prune.results.constraints import Constraints
from tune_prune.results.report.charts import figures, search
from tune_prune.results.report.charts.fronts import draw_fronts, draw_test_fronts
from tune_prune.results.report.headline import explain_hypervolume
from tune_prune.results.report.page import make_page
from tune_prune.results.report.tables.comparison import make_comparison_table
from tune_prune.results.run_results import RunResults


def make_comparison_page(runs: Mapping[str, RunResults], limits: Constraints, picture: bytes, watch: str = "") -> str:
    """Makes the page of runs by name; `picture` stands for its charts where plotly is not installed.

    `watch` is a script that loads the page again.
    """
    title = f"{len(runs)} runs"
    charts = _draw(runs, limits) if figures.has_plotly() else {}
    source = f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
    fallback = "" if charts else f'<img alt="the front of each run" src="{source}">'
    sections = [
        f"<h1>{escape(describe_runs(runs))}</h1>",
        f'<p class="headline">{title} within the same limit</p>',
        make_comparison_table(compare_runs(runs, limits), limits.metric),
        f'<p class="note">{escape(explain_hypervolume(limits))}</p>' if limits.has_area else "",
        fallback,
        *charts.values(),
    ]
    return make_page(escape(title), sections, watch)


def describe_runs(runs: Mapping[str, RunResults]) -> str:
    """What the runs are of: model and data, each as many times as they differ."""
    names = []
    for key in ("model", "data"):
        found = dict.fromkeys(describe_address(str(run.summary.get(key, "?"))) for run in runs.values())
        names.append(" and ".join(found))
    return " on ".join(names)


def _draw(runs: Mapping[str, RunResults], limits: Constraints) -> dict[str, str]:
    """The HTML of each chart with its heading, and last the scripts."""
    drawn = {"fronts": draw_fronts(runs, limits)}
    tests = draw_test_fronts(runs, limits)
    if tests is not None:
        drawn["tests"] = tests
    (first, run), *others = runs.items()
    if limits.has_area:
        points = {name: other.points for name, other in others}
        drawn["hypervolume"] = search.draw_hypervolume(run.points, limits, points, name=first)
    headings = {"fronts": "On validation data", "tests": "On test data", "hypervolume": "Hypervolume, trial by trial"}
    found = {name: f'<h2>{headings[name]}</h2>\n<div class="chart" id="chart-{name}"></div>' for name in drawn}
    return found | {"scripts": figures.make_scripts(drawn, {})}
