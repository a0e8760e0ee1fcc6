"""Writes the HTML report of a run: one file that loads nothing from elsewhere, made from the run directory."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from tune_prune.common import files
from tune_prune.common.entrypoints import describe_address
from tune_prune.common.errors import UserError
from tune_prune.results.report.charts import figures
from tune_prune.results.report.charts.figures import FindShares
from tune_prune.results.report.headline import make_headline
from tune_prune.results.report.page import make_page
from tune_prune.results.report.tables.facts import make_facts
from tune_prune.results.report.tables.front import make_front_table
from tune_prune.results.run_results import RunResults, SearchDescription, read_run

HEADINGS = {
    "comparison": "Did the search help?",
    "speed": "How fast the networks are",
    "kept": "What each layer keeps along the front",
    "hypervolume": "Hypervolume, trial by trial",
    "importance": "What decides how far above the front a trial ends",
    "sensitivity": "Each layer pruned alone",
}
"""The charts below the front, in their order."""


def write_report(
    run_dir: Path,
    compare: Sequence[Path] = (),
    *,
    search: SearchDescription | None = None,
    find_shares: FindShares | None = None,
) -> Path:
    """Writes report.html from what a run directory holds; returns its path.

    `compare` are directories of other runs by the same metric, shown in the same charts. `search` describes a search
    that still runs, of which the page shows what there is. `find_shares` computes from trials and members the share of
    each parameter in how far from the front a trial ends; without it there is no such chart. The charts are interactive
    where plotly is installed; otherwise there is the picture alone. The page leaves out and names what is missing or
    damaged; without a readable summary.json, in any of the directories, a `UserError` is raised.
    """
    others = {name: read_run(path) for name, path in figures.name_runs(compare).items()}
    run = read_run(run_dir, search)
    for name, other in others.items():
        if other.metric != run.metric:
            judged = f"{other.metric.name}, {other.metric.better} is better"
            raise UserError(f"--compare {name}: judged by {judged}, not by {run.metric.name} as {run_dir.name}")
    charts = figures.make_charts(run, others, find_shares) if figures.has_plotly() else {}
    headline = escape(make_headline(run.summary, run.partial, run.metric)).replace(" %", "&nbsp;%")
    model, data = (describe_address(str(run.summary.get(key, "?"))) for key in ("model", "data"))
    title = escape(f"{model} on {data}")
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="headline">{headline}</p>',
        _missing_html(run),
        charts.get("front") or _picture_html(run),
        make_front_table(run),
        _conf_html(run),
        *(f"<h2>{heading}</h2>\n{charts[name]}" for name, heading in HEADINGS.items() if name in charts),
        make_facts(run.summary, run.metric),
        "" if charts else "<p>For charts to look into: pip install 'tune-prune[report]', then tune-prune report.</p>",
        charts.get("scripts", ""),
    ]
    path = run_dir / "report.html"
    # JSON may hold what UTF-8 cannot, half a surrogate pair
    files.write_bytes(path, make_page(title, sections).encode("utf-8", "replace"))
    return path


def _missing_html(run: RunResults) -> str:
    return f'<p class="missing">Missing or damaged: {escape(", ".join(run.missing))}.</p>' if run.missing else ""


def _picture_html(run: RunResults) -> str:
    if run.picture is None:
        return ""
    source = f"data:image/png;base64,{base64.b64encode(run.picture).decode('ascii')}"
    name = escape(run.metric.name[:1].upper() + run.metric.name[1:])
    return f'<img alt="{name} over times fewer weights: every round, and the front" src="{source}">'


def _conf_html(run: RunResults) -> str:
    if run.conf is None:
        return ""
    name, text = run.conf
    return f'<h2><a href="{name}">{name}</a></h2>\n<pre>{escape(text)}</pre>'
