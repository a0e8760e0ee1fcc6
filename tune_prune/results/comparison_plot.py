"""Draws the fronts of several runs with matplotlib, in one picture."""

import io
from collections.abc import Mapping

from tune_prune.results import axis_ranges, palette
from tune_prune.results.constraints import Constraints
from tune_prune.results.front_picture import FACTOR_TITLE, find_steps
from tune_prune.results.run_results import RunResults
from tune_prune.results.tables import read_judged

STYLES = ("-", "--", ":")


def draw_comparison(runs: Mapping[str, RunResults], limits: Constraints, title: str) -> bytes:
    """Draws the front of each run by name as steps, and the limit; returns the bytes of a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    metric = limits.metric
    figure = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, run) in enumerate(runs.items()):
        colour, style = palette.LINES[number % len(palette.LINES)], STYLES[number // len(palette.LINES) % len(STYLES)]
        # a name that begins with an underscore would be left out of the legend
        steps = find_steps(run.members, metric)
        axes.step(*steps, where="pre", color=colour, linestyle=style, linewidth=1.8, label=f" {name}")
        axes.plot(run.members.factor, read_judged(run.members, metric), "o", color=colour, markersize=4.5)
    if limits.has_area:
        axes.axhline(limits.limit, color=palette.BLACK, linewidth=0.9)
        label = f"limit {metric.format(limits.limit)}"
        axes.text(1.008, limits.limit, label, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    left, right = axis_ranges.find_factor_range([run.members for run in runs.values()], [])
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.xaxis.set_major_locator(FixedLocator(axis_ranges.factor_ticks(right)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda factor, _: f"{factor:g}x")
    axes.set_xlabel(FACTOR_TITLE)
    axes.set_ylabel(f"validation {metric.title}", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=palette.GRID, linewidth=0.6)
    axes.set_title(title, loc="left", fontsize=12, color=palette.BLACK, parse_math=False, wrap=True)
    legend = figure.legend(loc="outside lower center", ncols=min(3, len(runs)), fontsize=8.5, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
