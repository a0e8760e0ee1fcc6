"""Hypervolume against CPU seconds: table and picture from what OUT_DIR holds.

    python experiments/search_efficiency/table.py OUT_DIR LIMIT

Hypervolume: the area below LIMIT percent of validation error that feasible points dominate, in log10(factor) from 0 to
3, as a share of that rectangle.
"""

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from tune_prune.results.pareto import hypervolume

SWITCHED_OFF = {
    "learn_from_rounds": "learning from rounds",
    "early_stopping": "early stopping",
    "initial_trials": "initial trials",
    "warm_start": "warm starts",
    "refine": "refinement",
}
"""The variants of ours.py, and what they go without."""

DESCRIPTIONS = {
    "erk": "one number for ERK",
    "global": "one global threshold",
    "uniform": "one ratio for all layers",
    "random": "random search",
    "nsga2": "NSGA-II",
}
"""The baselines in words."""

# Okabe and Ito's colours, which can be told apart with every kind of colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#8A8A8A", "#D55E00", "#56B4E9")

Curve = list[tuple[float, float]]
"""(CPU seconds so far, hypervolume)."""


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a whole table, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    part.rename(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def curve(path: Path, limit: float) -> Curve:
    """One run's hypervolume after every trial."""
    used, points, found = 0.0, list[tuple[float, float]](), list[tuple[float, float]]()
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            used += float(row["cpu_seconds"])
            if row["compression"] and float(row["val_error"]) <= limit:
                points.append((float(row["compression"]), float(row["val_error"])))
            found.append((used, hypervolume(points, limit)))
    return found


def hypervolume_at(found: Curve, seconds: float) -> float:
    """The hypervolume that a run has reached after so many CPU seconds."""
    return max((volume for used, volume in found if used <= seconds), default=0.0)


def seconds_to(found: Curve, volume: float) -> float:
    """The CPU seconds after which a run has reached a hypervolume; infinite where it never does."""
    return min((used for used, there in found if there >= volume), default=float("inf"))


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def title_of(method: str) -> str:
    """The name of a method in the table."""
    names = {"plain": "plain Ray Tune and Optuna", "whole": "this search"}
    return f"without {SWITCHED_OFF[method]}" if method in SWITCHED_OFF else names.get(method, method)


def describe(method: str) -> str:
    """The name of a method in pictures, in words."""
    return DESCRIPTIONS.get(method) or title_of(method)


def main() -> None:
    """Print the table; draw curves.png, and parts.png where parts were switched off."""
    out, limit = Path(sys.argv[1]), float(sys.argv[2])
    runs: dict[str, dict[str, Curve]] = defaultdict(dict)
    for path in sorted(out.glob("*-*.csv")):
        method, _, seed = path.stem.rpartition("-")
        runs[method][seed] = curve(path, limit)
    plain = list(runs["plain"].values())
    time = statistics.median(found[-1][0] for found in plain)
    volume = statistics.median(found[-1][1] for found in plain)
    print(f"plain: {time:.0f} CPU seconds to a hypervolume of {volume:.4f} (medians of {len(plain)} seeds)\n")
    print("| method | seeds | hypervolume at that time | CPU seconds to that hypervolume |\n|---|---|---|---|")
    for method, seeds in sorted(
        runs.items(), key=lambda item: -statistics.median(hypervolume_at(c, time) for c in item[1].values())
    ):
        volumes = [hypervolume_at(found, time) for found in seeds.values()]
        seconds = [seconds_to(found, volume) for found in seeds.values()]
        print(f"| {title_of(method)} | {len(seeds)} | {spread(volumes, 4)} | {spread(seconds, 0)} |")
    others = {method: seeds for method, seeds in runs.items() if method not in SWITCHED_OFF}
    parts = {method: seeds for method, seeds in runs.items() if method == "whole" or method in SWITCHED_OFF}
    draw(out / "curves.png", others, "This search reaches more in less time")
    if len(parts) > 1:
        draw(out / "parts.png", parts, "Refinement and warm starts gain most of what the parts add")


def draw(path: Path, runs: Mapping[str, Mapping[str, Curve]], title: str) -> None:
    """Draws hypervolume over CPU seconds: the median of each method's seeds, and behind it their range."""
    figure = Figure(figsize=(10, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    last = {method: statistics.median(found[-1][1] for found in seeds.values()) for method, seeds in runs.items()}
    for method in sorted(runs, key=lambda method: -last[method]):
        seeds, first = [*runs[method].values()], method == "whole"
        colour = "#0072B2" if first else COLOURS[1 + [name for name in runs if name != "whole"].index(method)]
        # from where all seeds have a trial to where the first of them ends
        begin, end = max(found[0][0] for found in seeds), min(found[-1][0] for found in seeds)
        times = sorted({used for found in seeds for used, _ in found if begin <= used <= end})
        reached = [[hypervolume_at(found, used) for found in seeds] for used in times]
        middle, low, high = ([choose(values) for values in reached] for choose in (statistics.median, min, max))
        label = f"{describe(method)} ({len(seeds)} seeds)" if len(seeds) > 1 else describe(method)
        axes.step(times, middle, where="post", color=colour, linewidth=2.4 if first else 1.4, label=label)
        axes.fill_between(times, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", ylim=(0, None), xlabel="CPU seconds", ylabel="hypervolume (share of the possible area)")
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")
    several = any(len(seeds) > 1 for seeds in runs.values())
    figure.legend(
        loc="outside right center", frameon=False, fontsize=9, title="median, and range of seeds" if several else None
    )
    figure.savefig(path)


if __name__ == "__main__":
    main()
