"""Says the outcome of a search in a sentence or two, and the values of a front's members in words."""

import math
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from tune_prune.results.constraints import Constraints, find_speed
from tune_prune.results.front_picture import Mark
from tune_prune.results.report.page import format_bytes, format_number
from tune_prune.results.report.tables.facts import format_value
from tune_prune.results.run_results import Row, RunResults, get_mapping, summary_front, to_float
from tune_prune.tasks.metrics import ERROR, Metric

MEANINGS = {
    "best": "the most compressed within the limit",
    "knee": "from here on, compression costs more",
}
"""The marks of a picture in words."""


def make_headline(summary: Row, partial: bool = False, metric: Metric = ERROR) -> str:
    """The outcome of a search in a sentence or two; `partial` where it still runs."""
    best = next((row for row in summary_front(summary) if row.get("id") == summary.get("best")), None)
    if partial:
        ended = sum(get_mapping(summary, "trials").values())
        if best is None:
            return f"Unfinished: {ended} trials so far, nothing within the limit."
        return f"Unfinished: {ended} trials so far, {format_factor(best)} at {_describe(best, metric)}."
    if best is not None:
        return f"{format_factor(best)} fewer weights at {_compare(best, get_mapping(summary, 'dense'), metric)}."
    nothing = f"Nothing within {_tradeoff(summary.get('acc_tradeoff'), metric)} of the dense {metric.name}."
    nearest = get_mapping(summary, "closest")
    if not nearest:
        return nothing
    smallest = _tradeoff(summary.get("smallest_tradeoff"), metric)
    by = f"{format_factor(nearest)} at {_describe(nearest, metric)}"
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
    interval = f" (95 % interval {format_interval(best, metric)})" if has_interval(best, metric) else ""
    return f"{_describe(best, metric, 'test')}{interval}, against {format_value(dense, metric, metric.test)} dense"


def make_picks(run: RunResults, marks: Sequence[Mark]) -> str:
    """The members that are marked in the picture, the best first, each in a box; empty where there is no front."""
    front = {str(row.get("id")): row for row in run.front}
    boxes = [_make_pick(run, front[mark.id], mark.name) for mark in reversed(marks) if mark.id in front]
    return f'<div class="picks">{"".join(boxes)}</div>' if boxes else ""


def _make_pick(run: RunResults, row: Row, name: str) -> str:
    metric = run.metric
    parts = [f"{format_value(row, metric, metric.val)} validation {metric.name}"]
    if math.isfinite(to_float(row.get(metric.test))):
        interval = f" ({format_interval(row, metric)})" if has_interval(row, metric) else ""
        parts.append(f"{format_value(row, metric, metric.test)} test{interval}")
    if math.isfinite(to_float(row.get("macs"))):
        parts.append(f"{100 * to_float(row.get('macs')):.1f} % of the multiply-adds")
    if math.isfinite(to_float(row.get("bytes"))):
        parts.append(f"{format_bytes(to_float(row.get('bytes')))} as a sparse file")
    if find_speed(row):
        parts.append(f"{find_speed(row):.2f} times as fast")
    files = " ".join(filter(None, (link(run, row, kind) for kind in ("conf", "checkpoint"))))
    meaning = escape(f"{name}: {row.get('id')}, {MEANINGS[name]}")
    return (
        f'<div class="pick"><p class="name">{meaning}</p>'
        f'<p class="what">{format_factor(row)} fewer weights</p><p>{escape("; ".join(parts))}</p><p>{files}</p></div>'
    )


def link(run: RunResults, row: Row, kind: str) -> str:
    """A link to a member's conf or checkpoint; empty where there is none, or it is missing."""
    target = str(row.get(kind) or "")  # empty for a round whose weights were not kept
    return f'<a href="{escape(quote(target))}">{kind}</a>' if target and target not in run.missing else ""


def explain_hypervolume(limits: Constraints) -> str:
    """What the hypervolume is the share of, in a sentence."""
    best = "an error of 0" if limits.metric == ERROR else limits.metric.format(limits.ideal)
    area = f"from 1x to 1000x fewer weights and from the limit ({limits.metric.format(limits.limit)}) to {best}"
    return f"Hypervolume: the share of the possible area that the front covers, {area}; factors on a logarithmic scale."


def format_factor(row: Row) -> str:
    """How many times fewer weights a row has: `14.1x`."""
    return format_number(to_float(row.get("factor")), ".1f", "x")


def has_interval(row: Row, metric: Metric) -> bool:
    """Whether a row has a test result with an interval; of errors what is missing of it is shown as such."""
    known = any(math.isfinite(to_float(row.get(f"{metric.test}_{end}"))) for end in ("low", "high"))
    return math.isfinite(to_float(row.get(metric.test))) and (metric == ERROR or known)


def format_interval(row: Row, metric: Metric) -> str:
    """The 95 % interval of a row's test metric: `0.53 to 0.85`."""
    ends = (to_float(row.get(f"{metric.test}_{end}")) for end in ("low", "high"))
    low, high = (metric.format(end).removesuffix(metric.unit) if math.isfinite(end) else "n/a" for end in ends)
    return f"{low} to {high}"
