"""The HTML report of a run: one file, nothing loaded from elsewhere, made from the files of the run directory."""

import base64
import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from urllib.parse import quote

from tune_prune.common import files
from tune_prune.results import run_results
from tune_prune.results.report import interactive
from tune_prune.results.report.page import duration, page, shown, table, to_float
from tune_prune.results.run_results import Found, Row, mapping, read_run, rows_of

HEADINGS = {
    "helped": "Did the search help?",
    "kept": "What each layer keeps along the front",
    "volume": "Hypervolume, trial by trial",
    "importance": "What decides how far above the front a trial ends",
    "sensitivity": "Each layer pruned alone",
}
"""The charts below the front, in their order."""

MOST_LAYERS = 8  # the ratios of more would make the table wider than any page; the .conf files have them


def write_report(run_dir: Path, compare: Sequence[Path] = ()) -> Path:
    """Write report.html from what a run directory holds; returns its path.

    Of a search that has not ended it shows what there is. The charts can be looked into where plotly is installed; else
    there is the picture alone. `beside` are directories of other runs, to compare with. What is missing or damaged is
    left out and named on the page; without a readable summary.json, here or beside, it is a `UserError`.
    """
    others = {}
    for name, path in interactive.name_runs(compare).items():
        read_run(path)
        others[name] = run_results.read_tables(path)
    if (run_dir / "summary.json").exists() or not (run_dir / "results").is_dir():
        found, tables = read_run(run_dir), run_results.read_tables(run_dir)
    else:
        found, tables = run_results.read_unfinished(run_dir)
    if interactive.has_plotly():
        found = replace(found, missing=[*dict.fromkeys([*found.missing, *tables.missing])])
        charts = interactive.sections(run_dir, found, tables, others)
    else:
        charts = {}
    title = escape(f"{found.summary.get('model', '?')} on {found.summary.get('data', '?')}")
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="headline">{escape(headline(found.summary)).replace(" %", "&nbsp;%")}</p>',
        _missing(found),
        charts.get("front") or _picture(found),
        _front(found),
        _best_conf(found),
        *(f"<h2>{heading}</h2>\n{charts[name]}" for name, heading in HEADINGS.items() if name in charts),
        _how_it_was_run(found.summary),
        "" if charts else "<p>For charts to look into: pip install 'tune-prune[report]', then tune-prune report.</p>",
        charts.get("scripts", ""),
    ]
    path = run_dir / "report.html"
    # JSON may hold what UTF-8 cannot, half a surrogate pair
    files.write_bytes(path, page(title, sections).encode("utf-8", "replace"))
    return path


def headline(summary: Row) -> str:
    """What the search came to, in a sentence or two."""
    best = next((row for row in rows_of(summary) if row.get("id") == summary.get("best")), None)
    if summary.get("unfinished"):
        ended = sum(mapping(summary, "trials").values())
        if best is None:
            return f"Unfinished: {ended} trials so far, nothing within the limit."
        return f"Unfinished: {ended} trials so far, {_factor(best)} at {_error(best, 'val')} validation error."
    if best is not None:
        return f"{_factor(best)} fewer weights at {_outcome(best, mapping(summary, 'dense'))}."
    nothing = f"Nothing within {shown(to_float(summary.get('acc_tradeoff')))} points of the dense error."
    nearest = mapping(summary, "closest")
    if not nearest:
        return nothing
    smallest = shown(to_float(summary.get("smallest_tradeoff")))
    by = f"{_factor(nearest)} at {_error(nearest, 'val')} validation error"
    return f"{nothing} {smallest} points would have been met, by {by}."


def _outcome(best: Row, dense: Row) -> str:
    """Test error against the dense model's, or validation errors where no test image was read."""
    if best.get("test_error") is None:
        return f"{_error(best, 'val')} validation error, against {_error(dense, 'val')} dense"
    now = f"{_error(best, 'test')} test error (95 % interval {_interval(best)})"
    return f"{now}, against {_error(dense, 'test')} dense"


def _missing(found: Found) -> str:
    return f'<p class="missing">Missing or damaged: {escape(", ".join(found.missing))}.</p>' if found.missing else ""


def _picture(found: Found) -> str:
    if found.picture is None:
        return ""
    source = f"data:image/png;base64,{base64.b64encode(found.picture).decode('ascii')}"
    return f'<img alt="Error over times fewer weights: every round, and the front" src="{source}">'


def _front(found: Found) -> str:
    if not found.front:
        return ""
    layers = [key.removeprefix("ratio/") for key in found.front[0] if key.startswith("ratio/")]
    layers = layers if len(layers) <= MOST_LAYERS else []
    head = ["", "fewer weights", "kept", "validation error", "test error, 95 % interval", "trial, round", "files"]
    again = any(math.isfinite(to_float(row.get("confirm_mean"))) for row in found.front)
    if again:
        head.insert(-2, "from other seeds, 95 % bound")
    if layers:
        head.append(f"removed, %, in {', '.join(layers)}")
    rows = [_front_cells(found, row, layers, again) for row in found.front]
    ids = [row.get("id") for row in found.front]
    best = found.summary.get("best")
    inside = table([escape(name) for name in head], rows, ids.index(best) if best in ids else None)
    tested = any(math.isfinite(to_float(row.get("test_error"))) for row in found.front)
    note = "<p>Chosen on validation images; test images were read once, for these points.</p>\n" if tested else ""
    if any(str(row.get("refit")) == "True" for row in found.front):
        note += "<p>Test errors are of weights refitted on training and validation images together.</p>\n"
    return f'<h2>The front</h2>\n{note}<div class="wide">{inside}</div>'


def _front_cells(found: Found, row: Row, layers: Sequence[str], again: bool) -> list[str]:
    cells = [
        escape(str(row.get("id"))),
        _factor(row),
        shown(100 * (1 - to_float(row.get("compression"))), ".2f", " %"),
        _error(row, "val"),
        shown(to_float(row.get("test_error")), ".2f", f" %, {_interval(row)}"),
        escape(f"{row.get('trial')}, {row.get('round')}"),
        " ".join(_link(found, row, kind) for kind in ("conf", "checkpoint")),
    ]
    if again:
        verdict = {"True": "holds", "False": "may not hold"}.get(str(row.get("confirm_holds")), "")
        mean, high = (shown(to_float(row.get(f"confirm_{name}")), ".2f", " %") for name in ("mean", "high"))
        cells.insert(-2, f"{mean}, {high} {verdict}")
    if layers:
        cells.append(", ".join(shown(100 * to_float(row.get(f"ratio/{layer}")), ".1f") for layer in layers))
    return cells


def _link(found: Found, row: Row, kind: str) -> str:
    target = str(row.get(kind) or "")  # empty for a round whose weights were not kept
    return f'<a href="{escape(quote(target))}">{kind}</a>' if target and target not in found.missing else ""


def _best_conf(found: Found) -> str:
    if found.best_conf is None:
        return ""
    return f'<h2><a href="best.conf">best.conf</a></h2>\n<pre>{escape(found.best_conf)}</pre>'


def _how_it_was_run(summary: Row) -> str:
    dense = mapping(summary, "dense")
    trials = ", ".join(f"{count} {state}" for state, count in mapping(summary, "trials").items())
    facts = {
        "command": summary.get("command", "n/a"),
        "space": summary.get("space", "n/a"),
        "sampler": f"{summary.get('sampler', 'n/a')}, seed {summary.get('seed', 'n/a')}",
        "device": f"{summary.get('device', 'n/a')}, {summary.get('concurrency', 'n/a')} at a time",
        "budget": f"{_budget(summary)}: {trials or 'n/a'}; {summary.get('points', 'n/a')} points",
        "accuracy tradeoff": shown(to_float(summary.get("acc_tradeoff")), "g", " points"),
        "dense error": f"{_error(dense, 'val')} validation, {_error(dense, 'test')} test",
        "hypervolume": shown(to_float(summary.get("hypervolume")), ".4f"),
        "wall-clock": duration(to_float(summary.get("wall_seconds"))),
        "processor time": duration(to_float(summary.get("cpu_seconds"))),
        "versions": ", ".join(f"{name} {version}" for name, version in mapping(summary, "versions").items()) or "n/a",
    }
    rows = [[f"<b>{name}</b>", escape(str(value))] for name, value in facts.items()]
    return f"<h2>How it was run</h2>\n{table([], rows)}"


def _budget(summary: Row) -> str:
    trials, seconds = summary.get("budget", "n/a"), summary.get("time_budget")
    limits = ["" if trials is None else f"{trials} trials", duration(to_float(seconds)) if seconds else ""]
    return " or ".join(filter(None, limits))


def _factor(row: Row) -> str:
    return shown(to_float(row.get("factor")), ".1f", "x")


def _error(row: Row, kind: str) -> str:
    """A validation ("val") or test error."""
    return shown(to_float(row.get(f"{kind}_error")), ".2f", " %")


def _interval(row: Row) -> str:
    low, high = (shown(to_float(row.get(f"test_error_{end}")), ".2f") for end in ("low", "high"))
    return f"{low} to {high}"
