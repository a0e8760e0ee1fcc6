"""Makes the HTML report of a run: one file that loads nothing from elsewhere, made from the run directory."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tune_prune.common import files
from tune_prune.common.entrypoints import describe_address
from tune_prune.results.comparison import check_comparable, compare_runs
from tune_prune.results.front_picture import mark_members
from tune_prune.results.published import find_published
from tune_prune.results.report.charts import figures
from tune_prune.results.report.charts.figures import FindShares
from tune_prune.results.report.headline import explain_hypervolume, make_headline, make_picks
from tune_prune.results.report.next_steps import make_next_steps
from tune_prune.results.report.page import Column, fold, make_page, make_table
from tune_prune.results.report.tables.comparison import make_comparison_table
from tune_prune.results.report.tables.facts import make_facts
from tune_prune.results.report.tables.front import make_front_section
from tune_prune.results.report.tables.trials import make_trials_section
from tune_prune.results.run_results import RunResults, SearchDescription, read_run
from tune_prune.tasks.metrics import ERROR

HEADINGS = {
    "speed": ("How fast the networks are", ""),
    "kept": ("What each layer keeps along the front", ""),
    "parallel": (
        "All trials, with their parameters",
        "A line is a trial, with its last point; blue ones are within the limit. Drag along an axis to select trials.",
    ),
    "importance": (
        "Which parameters matter most",
        "The share of each parameter in how far from the front a trial ends (PED-ANOVA, Watanabe et al. 2023).",
    ),
    "hypervolume": ("Hypervolume, trial by trial", "{hypervolume}"),
    "sensitivity": ("Each layer pruned alone", ""),
}
"""The charts below the front, in their order: heading and explanation."""


def write_report(
    run_dir: Path,
    compare: Sequence[Path] = (),
    *,
    search: SearchDescription | None = None,
    find_shares: FindShares | None = None,
) -> Path:
    """Writes report.html from what a run directory holds, as `make_report` makes it; returns its path."""
    page = make_report(run_dir, compare, search=search, find_shares=find_shares)
    path = run_dir / "report.html"
    # JSON may hold what UTF-8 cannot, half a surrogate pair
    files.write_bytes(path, page.encode("utf-8", "replace"))
    return path


def make_report(
    run_dir: Path,
    compare: Sequence[Path] = (),
    *,
    search: SearchDescription | None = None,
    find_shares: FindShares | None = None,
    watch: str = "",
) -> str:
    """Makes the report of a run directory.

    `compare` are directories of other runs by the same metric, shown in the same charts. `search` describes a search
    that still runs, of which the page shows what there is. `find_shares` computes from trials and members the share of
    each parameter in how far from the front a trial ends; without it there is no such chart. The charts are interactive
    where plotly is installed; otherwise there is the picture alone. The page leaves out and names what is missing or
    damaged; without a readable summary.json, in any of the directories, a `UserError` is raised. `watch` is a script
    that loads the page again.
    """
    others = {name: read_run(path) for name, path in name_runs(compare).items()}
    run = read_run(run_dir, search)
    check_comparable(run_dir.name, run, others, "--compare ")
    charts = figures.make_charts(run, others, find_shares) if figures.has_plotly() else {}
    headline = escape(make_headline(run.summary, run.partial, run.metric)).replace(" %", "&nbsp;%")
    model, data = (describe_address(str(run.summary.get(key, "?"))) for key in ("model", "data"))
    title = escape(f"{model} on {data}")
    marks = mark_members(run.members, run.metric)
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="headline">{headline}</p>',
        _missing_html(run),
        make_picks(run, marks),
        f"<h2>On validation data</h2>\n{charts['front']}" if "front" in charts else _picture_html(run),
        _tests_html(run, charts),
        make_front_section(run, {mark.id: mark.name for mark in marks}),
        make_next_steps(run, run_dir),
        _comparison_html(run, others),
        *(_chart_html(run, charts, name) for name in HEADINGS),
        make_trials_section(run),
        make_facts(run.summary, run.metric, run.partial),
        "" if charts else "<p>For charts to look into: pip install 'tune-prune[report]', then tune-prune report.</p>",
        _conf_html(run),
        charts.get("scripts", ""),
    ]
    return make_page(title, sections, watch)


def name_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """The directories of runs by name: the last part of the path, or all of it where that is taken."""
    named: dict[str, Path] = {}
    for path in paths:
        named[path.name if path.name not in named else str(path)] = path
    return named


def _chart_html(run: RunResults, charts: Mapping[str, str], name: str) -> str:
    if name not in charts:
        return ""
    heading, note = HEADINGS[name]
    if name == "hypervolume":
        note = explain_hypervolume(run.limits)
    chart = f'<div class="scroll">{charts[name]}</div>' if name == "parallel" else charts[name]
    words = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f"<h2>{heading}</h2>\n{words}{chart}"


def _tests_html(run: RunResults, charts: Mapping[str, str]) -> str:
    """The chart of test results, and published ones by name, folded: not all names have room in the chart."""
    if "tests" not in charts:
        return ""
    named = str(run.summary.get("model")), str(run.summary.get("data"))
    published = find_published(*named) if run.metric == ERROR else []
    rows = [[escape(one.work), f"{one.factor:.1f}x", f"{one.error:.2f} %"] for one in published]
    columns = [Column("published work", right=False), Column("fewer weights"), Column("test error")]
    folded = fold("Published results", make_table(columns, sorted(rows))) if rows else ""
    heading = "Published results, on test data" if run.partial else "On test data"
    return f"<h2>{heading}</h2>\n{charts['tests']}\n{folded}"


def _comparison_html(run: RunResults, others: Mapping[str, RunResults]) -> str:
    if not others:
        return ""
    compared = compare_runs({"this run": run, **others}, run.limits)
    return f"<h2>Compared with other runs</h2>\n{make_comparison_table(compared, run.metric)}"


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
    return fold(name, f'<p><a href="{name}">{name}</a></p>\n<pre>{escape(text)}</pre>')
