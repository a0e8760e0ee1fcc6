"""Prints runs and their fronts as Markdown tables: python experiments/lenet5/table.py RUN_DIR ..."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FACTORS = (24, 58, 100)
"""Of the member nearest to each of these the test error is printed."""

PRUNED_BY_HAND = 0.94
"""The test error, in percent, of torch7-pruner's author."""

COLUMNS = (
    "seed", "trials at a time", "minutes", "processor seconds", *(f"test error at about {f}x" for f in FACTORS),
    f"farthest at no more than {PRUNED_BY_HAND} %", "farthest", "hypervolume",
)  # fmt: skip


def write_run(summary: Mapping[str, Any]) -> str:
    """One run as a row."""
    front = summary["front"]
    nearest = [min(front, key=lambda member: abs(member["factor"] - factor)) for factor in FACTORS]
    below = [member for member in front if member["test_error"] <= PRUNED_BY_HAND]
    members = [*nearest, *(max(some, key=lambda member: member["factor"]) for some in (below, front))]
    cells = [summary["seed"], summary["concurrency"], f"{summary['wall_seconds'] / 60:.1f}",
             f"{summary['cpu_seconds']:,.0f}", *(f"{m['test_error']:.2f} % ({m['factor']:.1f}x)" for m in members),
             f"{summary['hypervolume']:.4f}"]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def write_front(summary: Mapping[str, Any]) -> str:
    """The front of a run, a row a member."""
    trials, minutes = summary["trials"], summary["wall_seconds"] / 60
    ended = f"{trials['completed']} trials completed, {trials['stopped']} stopped, {trials['failed']} failed"
    rows = [
        f"Seed {summary['seed']}: {minutes:.1f} minutes, {ended}; hypervolume {summary['hypervolume']:.4f}.\n",
        "| factor | compression | validation error | test error | 95 % |\n|---|---|---|---|---|",
    ]
    for m in summary["front"]:
        interval = f"{m['test_error_low']:.2f}-{m['test_error_high']:.2f}"
        errors = f"{m['val_error']:.2f} % | {m['test_error']:.2f} % | {interval}"
        rows.append(f"| {m['factor']:.1f}x | {m['compression']:.5f} | {errors} |")
    return "\n".join([*rows, ""])


def main() -> None:
    """Print a row for each run, and a table for each front, from summary.json."""
    summaries = [json.loads((Path(name) / "summary.json").read_text(encoding="utf-8")) for name in sys.argv[1:]]
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    print("\n".join(map(write_run, summaries)) + "\n")
    for summary in summaries:
        print(write_front(summary))


if __name__ == "__main__":
    main()
