"""The section of a front: what each member measured, its ratios and its files, in one table."""

import math
from collections.abc import Callable, Mapping
from html import escape

from tune_prune.results.certificate import Claim
from tune_prune.results.constraints import find_speed
from tune_prune.results.report.charts.style import list_layers
from tune_prune.results.report.headline import format_factor, format_interval, has_interval, link
from tune_prune.results.report.page import Column, format_bytes, format_number, make_table
from tune_prune.results.report.tables.facts import format_value
from tune_prune.results.run_results import Row, RunResults, to_float
from tune_prune.results.tables import confirm_columns, estimate_columns
from tune_prune.tasks.metrics import ERROR, Metric

Cells = dict[Column, Callable[[Row], str]]
"""The columns of a table, and what each shows of a row, as HTML."""

MOST_LAYERS = 12
"""The most layers that have a column of their own; the .conf files have the ratios of all."""


def make_front_section(run: RunResults, marks: Mapping[str, str]) -> str:
    """The front's table, and how its values were measured; `marks` are names by id. Empty where there is no front."""
    front = run.front
    if not front:
        return ""
    columns = (
        _name_columns(run, marks)
        | _measured_columns(run)
        | _cost_columns(run)
        | _checked_columns(run)
        | _layer_columns(run)
        | _file_columns(run)
    )
    rows = [[show(row) for show in columns.values()] for row in front]
    marked = [number for number, row in enumerate(front) if str(row.get("id")) in marks]
    table = make_table([*columns], rows, marked, name="front")
    return f'<h2>The front</h2>\n{_notes(run)}<div class="wide">{table}</div>'


def _name_columns(run: RunResults, marks: Mapping[str, str]) -> Cells:
    def name(row: Row) -> str:
        mark = marks.get(str(row.get("id")), "")
        return escape(str(row.get("id"))) + (f" <b>{mark}</b>" if mark else "")

    return {Column("", right=False): name, Column("fewer weights"): format_factor}


def _measured_columns(run: RunResults) -> Cells:
    metric, front = run.metric, run.front
    found: Cells = {Column(f"validation {escape(metric.name)}"): _show(metric, metric.val)}
    if any(math.isfinite(to_float(row.get(metric.test))) for row in front):
        found[Column(f"test {escape(metric.name)}")] = _show(metric, metric.test)
    if any(has_interval(row, metric) for row in front):
        found[Column("95 % interval")] = lambda row: format_interval(row, metric) if has_interval(row, metric) else ""
    for column in estimate_columns(metric):
        values = [(to_float(row.get(column)), to_float(row.get(metric.val))) for row in front]
        if any(math.isfinite(estimate) and estimate != value for estimate, value in values):
            found[Column("estimated error")] = _show(metric, column)
    for column in _list_further(run):
        name = escape(column.removeprefix("val_"))
        found[Column(f"validation {name}")] = _show(Metric(""), column)
        found[Column(f"test {name}")] = _show(Metric(""), column.replace("val_", "test_", 1))
    return found


def _show(metric: Metric, column: str) -> Callable[[Row], str]:
    return lambda row: format_value(row, metric, column)


def _cost_columns(run: RunResults) -> Cells:
    found: Cells = {
        Column("weights kept"): lambda row: format_number(100 * (1 - to_float(row.get("compression"))), ".2f", " %")
    }
    known = {name for name in ("macs", "bytes", "latency_ms") for row in run.front if row.get(name) is not None}
    if "macs" in known:
        found[Column("multiply-adds kept")] = lambda row: format_number(100 * to_float(row.get("macs")), ".1f", " %")
    if "bytes" in known:
        found[Column("as a sparse file")] = lambda row: format_bytes(to_float(row.get("bytes")))
    if any(find_speed(row) for row in run.front):
        found[Column("times as fast")] = lambda row: f"{find_speed(row):.2f}" if find_speed(row) else "n/a"
    if "latency_ms" in known:
        found[Column("ms a batch, predicted")] = lambda row: format_number(to_float(row.get("latency_ms")), ".2f")
    return found


def _checked_columns(run: RunResults) -> Cells:
    """What `--confirm` and `--certify` found, and which trial and round a member is."""
    metric, found = run.metric, Cells()
    names = confirm_columns(metric)
    if any(math.isfinite(to_float(row.get("confirm_mean"))) for row in run.front):
        verdicts = {"True": "holds", "False": "may not hold"}
        found |= {
            Column("mean from other seeds"): lambda row: format_value(row, metric, names[0]),
            Column("its 95 % bound"): lambda row: (
                f"{format_value(row, metric, names[2])} {verdicts.get(str(row.get('confirm_holds')), '')}"
            ),
        }
    certify = to_float(run.summary.get("certify"))
    if math.isfinite(certify):
        found |= {
            Column("certified"): lambda row: {"True": "yes", "False": "no"}.get(str(row.get("certified")), "n/a"),
            Column(f"{100 * certify:g} % bound of how much worse"): lambda row: format_value(
                row, metric, "certify_bound"
            ),
        }
    found[Column("trial, round")] = lambda row: escape(f"{row.get('trial')}, {row.get('round')}")
    return found


def _layer_columns(run: RunResults) -> Cells:
    layers = list_layers(run.members)
    if len(layers) > MOST_LAYERS:
        return {}

    def make_cell(layer: str) -> Callable[[Row], str]:
        return lambda row: format_number(100 * to_float(row.get(f"ratio/{layer}")), ".1f")

    return {Column(escape(layer), group="removed, %, in layer"): make_cell(layer) for layer in layers}


def _file_columns(run: RunResults) -> Cells:
    """The links to each member's files; nothing while the search runs, when there are none."""
    if run.partial:
        return {}
    return {Column("files", right=False): lambda row: " ".join(link(run, row, kind) for kind in ("conf", "checkpoint"))}


def _notes(run: RunResults) -> str:
    """How the values of the front were measured, in paragraphs."""
    metric, notes = run.metric, []
    if any(math.isfinite(to_float(row.get(metric.test))) for row in run.front):
        notes.append("Chosen on validation data; only these points were measured on test data.")
        if run.summary.get("test_interval"):
            notes.append(f"95 % interval: {escape(str(run.summary['test_interval']))}.")
    if any(str(row.get("refit")) == "True" for row in run.front):
        what = "Test errors are" if metric == ERROR else f"The test {escape(metric.name)} is"
        notes.append(f"{what} of weights refitted on training and validation data together.")
    notes.append(_describe_certificate(run))
    if len(list_layers(run.members)) > MOST_LAYERS:
        notes.append("The .conf files have the ratio of each layer.")
    return "".join(f'<p class="note">{note}</p>\n' for note in notes if note)


def _describe_certificate(run: RunResults) -> str:
    """What is certified; empty where no certificates were asked for."""
    level, tradeoff = (to_float(run.summary.get(key)) for key in ("certify", "acc_tradeoff"))
    if not math.isfinite(level) or not math.isfinite(tradeoff):
        return ""
    claim = Claim(tradeoff, level).describe(run.metric)
    best = next((row for row in run.front if row.get("id") == run.summary.get("certified")), None)
    what = "Nothing is certified to have" if best is None else f"Certified, {best['id']} and all less compressed ones:"
    method = str(run.summary.get("certify_method") or "not tested")
    return escape(f"{what} {claim} ({method}).")


def _list_further(run: RunResults) -> list[str]:
    """The columns of the further metrics on validation data, `val_<name>`."""
    names = run.summary.get("further_metrics")
    columns = [f"val_{name}" for name in names] if isinstance(names, list) else []
    return [column for column in columns if column in run.members]
