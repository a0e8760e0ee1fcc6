"""Writes the HTML report of a run: one file that loads nothing from elsewhere, made from the run directory."""

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from tune_prune.common import files
from tune_prune.results.report import interactive
from tune_prune.results.report.charts import list_layers
from tune_prune.results.report.interactive import FindShares
from tune_prune.results.report.page import format_duration, format_number, make_page, make_table, to_float
from tune_prune.results.run_results import (
    Row,
    RunResults,
    SearchDescription,
    get_mapping,
    read_run,
    summary_front,
)

HEADINGS = {
    "comparison": "Did the search help?",
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

    `compare` are directories of other runs, shown in the same charts. `search` describes a search that still runs, of
    which the page shows what there is. `find_shares` computes from trials and members the share of each parameter in
    how far above the front a trial ends; without it there is no such chart. The charts are interactive where plotly is
    installed; otherwise there is the picture alone. The page leaves out and names what is missing or damaged; without a
    readable summary.json, in any of the directories, a `UserError` is raised.
    """
    others = {name: read_run(path) for name, path in interactive.name_runs(compare).items()}
    run = read_run(run_dir, search)
    charts = interactive.make_charts(run, others, find_shares) if interactive.has_plotly() else {}
    title = escape(f"{run.summary.get('model', '?')} on {run.summary.get('data', '?')}")
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="headline">{escape(make_headline(run.summary, run.partial)).replace(" %", "&nbsp;%")}</p>',
        _missing_html(run),
        charts.get("front") or _picture_html(run),
        _front_html(run),
        _conf_html(run),
        *(f"<h2>{heading}</h2>\n{charts[name]}" for name, heading in HEADINGS.items() if name in charts),
        _facts_html(run.summary),
        "" if charts else "<p>For charts to look into: pip install 'tune-prune[report]', then tune-prune report.</p>",
        charts.get("scripts", ""),
    ]
    path = run_dir / "report.html"
    # JSON may hold what UTF-8 cannot, half a surrogate pair
    files.write_bytes(path, make_page(title, sections).encode("utf-8", "replace"))
    return path


def make_headline(summary: Row, partial: bool = False) -> str:
    """The outcome of a search in a sentence or two; `partial` where it still runs."""
    best = next((row for row in summary_front(summary) if row.get("id") == summary.get("best")), None)
    if partial:
        ended = sum(get_mapping(summary, "trials").values())
        if best is None:
            return f"Unfinished: {ended} trials so far, nothing within the limit."
        return f"Unfinished: {ended} trials so far, {_factor(best)} at {_error(best, 'val')} validation error."
    if best is not None:
        return f"{_factor(best)} fewer weights at {_errors(best, get_mapping(summary, 'dense'))}."
    nothing = f"Nothing within {format_number(to_float(summary.get('acc_tradeoff')))} points of the dense error."
    nearest = get_mapping(summary, "closest")
    if not nearest:
        return nothing
    smallest = format_number(to_float(summary.get("smallest_tradeoff")))
    by = f"{_factor(nearest)} at {_error(nearest, 'val')} validation error"
    return f"{nothing} {smallest} points would have been met, by {by}."


def _errors(best: Row, dense: Row) -> str:
    """The test error against the dense model's, or the validation errors where no test image was read."""
    if best.get("test_error") is None:
        return f"{_error(best, 'val')} validation error, against {_error(dense, 'val')} dense"
    now = f"{_error(best, 'test')} test error (95 % interval {_interval(best)})"
    return f"{now}, against {_error(dense, 'test')} dense"


def _missing_html(run: RunResults) -> str:
    return f'<p class="missing">Missing or damaged: {escape(", ".join(run.missing))}.</p>' if run.missing else ""


def _picture_html(run: RunResults) -> str:
    if run.picture is None:
        return ""
    source = f"data:image/png;base64,{base64.b64encode(run.picture).decode('ascii')}"
    return f'<img alt="Error over times fewer weights: every round, and the front" src="{source}">'


def _front_html(run: RunResults) -> str:
    front = run.front
    if not front:
        return ""
    layers = list_layers(run.members)
    layers = layers if len(layers) <= MOST_LAYERS else []
    head = ["", "fewer weights", "kept", "validation error", "test error, 95 % interval", "trial, round", "files"]
    again = any(math.isfinite(to_float(row.get("confirm_mean"))) for row in front)
    if again:
        head.insert(-2, "from other seeds, 95 % bound")
    if layers:
        head.append(f"removed, %, in {', '.join(layers)}")
    rows = [_front_cells(run, row, layers, again) for row in front]
    ids = [row.get("id") for row in front]
    best = run.summary.get("best")
    inside = make_table([escape(name) for name in head], rows, ids.index(best) if best in ids else None)
    tested = any(math.isfinite(to_float(row.get("test_error"))) for row in front)
    note = "<p>Chosen on validation images; test images were read once, for these points.</p>\n" if tested else ""
    if any(str(row.get("refit")) == "True" for row in front):
        note += "<p>Test errors are of weights refitted on training and validation images together.</p>\n"
    return f'<h2>The front</h2>\n{note}<div class="wide">{inside}</div>'


def _front_cells(run: RunResults, row: Row, layers: Sequence[str], again: bool) -> list[str]:
    cells = [
        escape(str(row.get("id"))),
        _factor(row),
        format_number(100 * (1 - to_float(row.get("compression"))), ".2f", " %"),
        _error(row, "val"),
        format_number(to_float(row.get("test_error")), ".2f", f" %, {_interval(row)}"),
        escape(f"{row.get('trial')}, {row.get('round')}"),
        " ".join(_link(run, row, kind) for kind in ("conf", "checkpoint")),
    ]
    if again:
        verdict = {"True": "holds", "False": "may not hold"}.get(str(row.get("confirm_holds")), "")
        mean, high = (format_number(to_float(row.get(f"confirm_{name}")), ".2f", " %") for name in ("mean", "high"))
        cells.insert(-2, f"{mean}, {high} {verdict}")
    if layers:
        cells.append(", ".join(format_number(100 * to_float(row.get(f"ratio/{layer}")), ".1f") for layer in layers))
    return cells


def _link(run: RunResults, row: Row, kind: str) -> str:
    target = str(row.get(kind) or "")  # empty for a round whose weights were not kept
    return f'<a href="{escape(quote(target))}">{kind}</a>' if target and target not in run.missing else ""


def _conf_html(run: RunResults) -> str:
    if run.conf is None:
        return ""
    name, text = run.conf
    return f'<h2><a href="{name}">{name}</a></h2>\n<pre>{escape(text)}</pre>'


def _facts_html(summary: Row) -> str:
    dense = get_mapping(summary, "dense")
    versions = ", ".join(f"{name} {version}" for name, version in get_mapping(summary, "versions").items())
    trials = ", ".join(f"{count} {state}" for state, count in get_mapping(summary, "trials").items())
    facts = {
        "command": summary.get("command", "n/a"),
        "space": summary.get("space", "n/a"),
        "sampler": f"{summary.get('sampler', 'n/a')}, seed {summary.get('seed', 'n/a')}",
        "device": f"{summary.get('device', 'n/a')}, {summary.get('concurrency', 'n/a')} at a time",
        "budget": f"{_budget(summary)}: {trials or 'n/a'}; {summary.get('points', 'n/a')} points",
        "accuracy tradeoff": format_number(to_float(summary.get("acc_tradeoff")), "g", " points"),
        "dense error": f"{_error(dense, 'val')} validation, {_error(dense, 'test')} test",
        "hypervolume": format_number(to_float(summary.get("hypervolume")), ".4f"),
        "wall-clock": format_duration(to_float(summary.get("wall_seconds"))),
        "processor time": format_duration(to_float(summary.get("cpu_seconds"))),
        "versions": versions or "n/a",
    }
    rows = [[f"<b>{name}</b>", escape(str(value))] for name, value in facts.items()]
    return f"<h2>How it was run</h2>\n{make_table([], rows)}"


def _budget(summary: Row) -> str:
    trials, seconds = summary.get("budget", "n/a"), summary.get("time_budget")
    limits = ["" if trials is None else f"{trials} trials", format_duration(to_float(seconds)) if seconds else ""]
    return " or ".join(filter(None, limits))


def _factor(row: Row) -> str:
    return format_number(to_float(row.get("factor")), ".1f", "x")


def _error(row: Row, kind: str) -> str:
    """A validation ("val") or test error."""
    return format_number(to_float(row.get(f"{kind}_error")), ".2f", " %")


def _interval(row: Row) -> str:
    low, high = (format_number(to_float(row.get(f"test_error_{end}")), ".2f") for end in ("low", "high"))
    return f"{low} to {high}"
