"""The table of a report that says how a search was run, from its summary."""

import math
from html import escape

from tune_prune.results.forecast import Band, Forecast
from tune_prune.results.report.page import format_duration, format_number, make_facts_table
from tune_prune.results.run_results import Row, get_mapping, to_float
from tune_prune.tasks.metrics import ERROR, Metric


def make_facts(summary: Row, metric: Metric, partial: bool = False) -> str:
    """The table of how a search was run; `partial` where it still runs, and only what is known then is in it."""
    dense = get_mapping(summary, "dense")
    versions = ", ".join(f"{name} {version}" for name, version in get_mapping(summary, "versions").items())
    trials = ", ".join(f"{count} {state}" for state, count in get_mapping(summary, "trials").items())
    tradeoff_unit = " points" if metric == ERROR else metric.unit
    facts = {
        "command": summary.get("command", "n/a"),
        "space": summary.get("space", "n/a"),
        "sampler": f"{summary.get('sampler', 'n/a')}, seed {summary.get('seed', 'n/a')}",
        "device": f"{summary.get('device', 'n/a')}, {summary.get('concurrency', 'n/a')} at a time",
        "budget": _budget(summary),
        "trials": f"{trials or 'n/a'}; {summary.get('points', 'n/a')} points",
        "accuracy tradeoff": format_number(to_float(summary.get("acc_tradeoff")), "g", tradeoff_unit),
        f"dense {escape(metric.name)}": f"{format_value(dense, metric, metric.val)} validation, "
        f"{format_value(dense, metric, metric.test)} test",
        **_describe_further(summary),
        "hypervolume": format_number(to_float(summary.get("hypervolume")), ".4f", " of the possible area"),
        **_describe_forecast(summary),
        "wall-clock": format_duration(to_float(summary.get("wall_seconds"))),
        "processor time": format_duration(to_float(summary.get("cpu_seconds"))),
        "versions": versions or "n/a",
    }
    shown = {name: escape(str(value)) for name, value in facts.items() if not (partial and "n/a" in str(value))}
    return f"<h2>How it was run</h2>\n{make_facts_table(shown)}"


def _budget(summary: Row) -> str:
    trials, seconds = summary.get("budget", "n/a"), summary.get("time_budget")
    limits = ["" if trials is None else f"{trials} trials", format_duration(to_float(seconds)) if seconds else ""]
    return " or ".join(filter(None, limits))


def _describe_forecast(summary: Row) -> dict[str, str]:
    """What the front is expected to be after as much training again, where a summary says so."""
    found, bands = get_mapping(summary, "forecast"), []
    for name in ("factor", "gain"):
        band = get_mapping(found, name)
        bands.append(Band(*(to_float(band.get(end)) for end in ("low", "expected", "high"))))
    known = all(math.isfinite(value) for band in bands for value in (band.low, band.expected, band.high))
    return {"forecast": Forecast(*bands).describe()} if known else {}


def _describe_further(summary: Row) -> dict[str, str]:
    """The dense model's further metrics, and the limits on costs and metrics, where there are some."""
    dense, names = get_mapping(summary, "dense"), summary.get("further_metrics")
    found = {}
    for name in names if isinstance(names, list) else []:
        values = (format_value(dense, Metric(""), f"{part}_{name}") for part in ("val", "test"))
        found[f"dense {escape(str(name))}"] = " validation, ".join(values) + " test"
    sides = {"at most": get_mapping(summary, "at_most"), "at least": get_mapping(summary, "at_least")}
    words = [f"{name} {to_float(limit):g} {side}" for side, limits in sides.items() for name, limit in limits.items()]
    return found | ({"limits": ", ".join(words)} if found and words else {})


def format_value(row: Row, metric: Metric, name: str) -> str:
    """The value of the metric in a column, as text."""
    value = to_float(row.get(name))
    return metric.format(value) if math.isfinite(value) else "n/a"
