"""Writes the HTML report of a run: one file that loads nothing from elsewhere, made from the run directory."""

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from tune_prune.common import files
from tune_prune.common.entrypoints import describe_address
from tune_prune.common.errors import UserError
from tune_prune.results.certificate import Claim
from tune_prune.results.constraints import find_speed
from tune_prune.results.report import interactive
from tune_prune.results.report.charts import list_layers
from tune_prune.results.report.facts import format_value, make_facts
from tune_prune.results.report.interactive import FindShares
from tune_prune.results.report.page import format_number, make_page, make_table
from tune_prune.results.run_results import (
    Row,
    RunResults,
    SearchDescription,
    get_mapping,
    read_run,
    summary_front,
    to_float,
)
from tune_prune.results.tables import confirm_columns
from tune_prune.tasks.metrics import ERROR, Metric

HEADINGS = {
    "comparison": "Did the search help?",
    "speed": "How fast the networks are",
    "kept": "What each layer keeps along the front",
    "hypervolume": "Hypervolume, trial by trial",
    "importance": "What decides how far above the front a trial ends",
    "sensitivity": "Each layer pruned alone",
}
"""The charts below the front, in their order."""

MOST_LAYERS = 8  # the ratios of more would make the table wider than any page; the .conf files have them


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
    others = {name: read_run(path) for name, path in interactive.name_runs(compare).items()}
    run = read_run(run_dir, search)
    for name, other in others.items():
        if other.metric != run.metric:
            judged = f"{other.metric.name}, {other.metric.better} is better"
            raise UserError(f"--compare {name}: judged by {judged}, not by {run.metric.name} as {run_dir.name}")
    charts = interactive.make_charts(run, others, find_shares) if interactive.has_plotly() else {}
    headline = escape(make_headline(run.summary, run.partial, run.metric)).replace(" %", "&nbsp;%")
    model, data = (describe_address(str(run.summary.get(key, "?"))) for key in ("model", "data"))
    title = escape(f"{model} on {data}")
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="headline">{headline}</p>',
        _missing_html(run),
        charts.get("front") or _picture_html(run),
        _front_html(run),
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


def make_headline(summary: Row, partial: bool = False, metric: Metric = ERROR) -> str:
    """The outcome of a search in a sentence or two; `partial` where it still runs."""
    best = next((row for row in summary_front(summary) if row.get("id") == summary.get("best")), None)
    if partial:
        ended = sum(get_mapping(summary, "trials").values())
        if best is None:
            return f"Unfinished: {ended} trials so far, nothing within the limit."
        return f"Unfinished: {ended} trials so far, {_factor(best)} at {_describe(best, metric)}."
    if best is not None:
        return f"{_factor(best)} fewer weights at {_compare(best, get_mapping(summary, 'dense'), metric)}."
    nothing = f"Nothing within {_tradeoff(summary.get('acc_tradeoff'), metric)} of the dense {metric.name}."
    nearest = get_mapping(summary, "closest")
    if not nearest:
        return nothing
    smallest = _tradeoff(summary.get("smallest_tradeoff"), metric)
    by = f"{_factor(nearest)} at {_describe(nearest, metric)}"
    return f"{nothing} {smallest} would have been met, by {by}."


def _tradeoff(value: object, metric: Metric) -> str:
    tradeoff = to_float(value)
    return metric.format_tradeoff(tradeoff) if math.isfinite(tradeoff) else "n/a points" if metric == ERROR else "n/a"


def _describe(row: Row, metric: Metric, split: str = "validation") -> str:
    """The metric of a row in words: `1.36 % validation error`, `validation f1 0.9140`."""
    text = format_value(row, metric, metric.val if split == "validation" else metric.test)
    return f"{text} {split} {metric.name}" if metric == ERROR else f"{split} {metric.name} {text}"


def _compare(best: Row, dense: Row, metric: Metric) -> str:
    """The test result against the dense model's, or the validation metrics where no test image was read."""
    if best.get(metric.test) is None:
        return f"{_describe(best, metric)}, against {format_value(dense, metric, metric.val)} dense"
    interval = f" (95 % interval {_interval(best, metric)})" if _has_interval(best, metric) else ""
    return f"{_describe(best, metric, 'test')}{interval}, against {format_value(dense, metric, metric.test)} dense"


def _missing_html(run: RunResults) -> str:
    return f'<p class="missing">Missing or damaged: {escape(", ".join(run.missing))}.</p>' if run.missing else ""


def _picture_html(run: RunResults) -> str:
    if run.picture is None:
        return ""
    source = f"data:image/png;base64,{base64.b64encode(run.picture).decode('ascii')}"
    name = escape(run.metric.name[:1].upper() + run.metric.name[1:])
    return f'<img alt="{name} over times fewer weights: every round, and the front" src="{source}">'


def _front_html(run: RunResults) -> str:
    front = run.front
    if not front:
        return ""
    layers = list_layers(run.members)
    layers, metric = layers if len(layers) <= MOST_LAYERS else [], run.metric
    known = metric == ERROR or any(_has_interval(row, metric) for row in front)
    test = f"test {metric.name}" + (", 95 % interval" if known else "")
    head = ["", "fewer weights", "kept", f"validation {metric.name}", test, "trial, round", "files"]
    again = any(math.isfinite(to_float(row.get("confirm_mean"))) for row in front)
    if again:
        head.insert(-2, "from other seeds, 95 % bound")
    if any(find_speed(row) for row in front):
        head.insert(-2, "times as fast")
    certify = to_float(run.summary.get("certify"))
    if math.isfinite(certify):
        head.insert(-2, f"certified, {100 * certify:g} % bound of how much worse")
    further = _list_further(run)
    head[-2:-2] = [f"{column.removeprefix('val_')}, validation and test" for column in further]
    if layers:
        head.append(f"removed, %, in {', '.join(layers)}")
    rows = [_front_cells(run, row, layers, again) for row in front]
    ids = [row.get("id") for row in front]
    best = run.summary.get("best")
    inside = make_table([escape(name) for name in head], rows, ids.index(best) if best in ids else None)
    tested = any(math.isfinite(to_float(row.get(metric.test))) for row in front)
    note = "<p>Chosen on validation images; only these points were measured on test images.</p>\n" if tested else ""
    if tested and run.summary.get("test_interval"):
        note += f"<p>95 % interval: {escape(str(run.summary['test_interval']))}.</p>\n"
    if any(str(row.get("refit")) == "True" for row in front):
        what = "Test errors are" if metric == ERROR else f"The test {escape(metric.name)} is"
        note += f"<p>{what} of weights refitted on training and validation images together.</p>\n"
    note += _certificate_html(run)
    return f'<h2>The front</h2>\n{note}<div class="wide">{inside}</div>'


def _certificate_html(run: RunResults) -> str:
    """What is certified, in a paragraph; nothing where no certificates were asked for."""
    level, tradeoff = (to_float(run.summary.get(key)) for key in ("certify", "acc_tradeoff"))
    if not math.isfinite(level) or not math.isfinite(tradeoff):
        return ""
    claim = Claim(tradeoff, level).describe(run.metric)
    best = next((row for row in run.front if row.get("id") == run.summary.get("certified")), None)
    what = "Nothing is certified to have" if best is None else f"Certified, {best['id']} and all less compressed ones:"
    method = str(run.summary.get("certify_method") or "not tested")
    return f"<p>{escape(f'{what} {claim} ({method}).')}</p>\n"


def _front_cells(run: RunResults, row: Row, layers: Sequence[str], again: bool) -> list[str]:
    metric = run.metric
    test = format_value(row, metric, metric.test)
    cells = [
        escape(str(row.get("id"))),
        _factor(row),
        format_number(100 * (1 - to_float(row.get("compression"))), ".2f", " %"),
        format_value(row, metric, metric.val),
        f"{test}, {_interval(row, metric)}" if _has_interval(row, metric) else test,
        escape(f"{row.get('trial')}, {row.get('round')}"),
        " ".join(_link(run, row, kind) for kind in ("conf", "checkpoint")),
    ]
    if again:
        verdict = {"True": "holds", "False": "may not hold"}.get(str(row.get("confirm_holds")), "")
        names = confirm_columns(metric)
        mean, bound = (format_value(row, metric, name) for name in (names[0], names[2]))
        cells.insert(-2, f"{mean}, {bound} {verdict}")
    if find_speed(row):
        cells.insert(-2, f"{find_speed(row):.2f}")
    if "certified" in row:
        verdict = {"True": "yes", "False": "no"}.get(str(row["certified"]), "n/a")
        cells.insert(-2, f"{verdict}, {format_value(row, metric, 'certify_bound')}")
    cells[-2:-2] = [
        " and ".join(format_value(row, Metric(""), name) for name in (column, column.replace("val_", "test_", 1)))
        for column in _list_further(run)
    ]
    if layers:
        cells.append(", ".join(format_number(100 * to_float(row.get(f"ratio/{layer}")), ".1f") for layer in layers))
    return cells


def _list_further(run: RunResults) -> list[str]:
    """The columns of the further metrics on validation data, `val_<name>`."""
    names = run.summary.get("further_metrics")
    columns = [f"val_{name}" for name in names] if isinstance(names, list) else []
    return [column for column in columns if column in run.members]


def _link(run: RunResults, row: Row, kind: str) -> str:
    target = str(row.get(kind) or "")  # empty for a round whose weights were not kept
    return f'<a href="{escape(quote(target))}">{kind}</a>' if target and target not in run.missing else ""


def _conf_html(run: RunResults) -> str:
    if run.conf is None:
        return ""
    name, text = run.conf
    return f'<h2><a href="{name}">{name}</a></h2>\n<pre>{escape(text)}</pre>'


def _factor(row: Row) -> str:
    return format_number(to_float(row.get("factor")), ".1f", "x")


def _has_interval(row: Row, metric: Metric) -> bool:
    """Whether a row has a test result with an interval; of errors what is missing of it is shown as such."""
    known = any(math.isfinite(to_float(row.get(f"{metric.test}_{end}"))) for end in ("low", "high"))
    return math.isfinite(to_float(row.get(metric.test))) and (metric == ERROR or known)


def _interval(row: Row, metric: Metric) -> str:
    ends = (to_float(row.get(f"{metric.test}_{end}")) for end in ("low", "high"))
    low, high = (metric.format(end).removesuffix(metric.unit) if math.isfinite(end) else "n/a" for end in ends)
    return f"{low} to {high}"
