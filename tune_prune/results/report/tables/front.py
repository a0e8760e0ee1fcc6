"""The table of a front: what each member measured, and its files."""

import math
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from tune_prune.results.certificate import Claim
from tune_prune.results.constraints import find_speed
from tune_prune.results.report.charts.style import list_layers
from tune_prune.results.report.headline import format_factor, format_interval, has_interval
from tune_prune.results.report.page import format_number, make_table
from tune_prune.results.report.tables.facts import format_value
from tune_prune.results.run_results import Row, RunResults, to_float
from tune_prune.results.tables import confirm_columns
from tune_prune.tasks.metrics import ERROR, Metric

MOST_LAYERS = 8  # the ratios of more would make the table wider than any page; the .conf files have them


def make_front_table(run: RunResults) -> str:
    """The section of the front: its table, and how its values were measured; empty where there is no front."""
    front = run.front
    if not front:
        return ""
    layers = list_layers(run.members)
    layers, metric = layers if len(layers) <= MOST_LAYERS else [], run.metric
    known = metric == ERROR or any(has_interval(row, metric) for row in front)
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
        format_factor(row),
        format_number(100 * (1 - to_float(row.get("compression"))), ".2f", " %"),
        format_value(row, metric, metric.val),
        f"{test}, {format_interval(row, metric)}" if has_interval(row, metric) else test,
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
