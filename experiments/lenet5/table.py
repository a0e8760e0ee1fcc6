"""Prints the fronts of runs as Markdown tables: python experiments/lenet5/table.py RUN_DIR ..."""

import json
import sys
from pathlib import Path


def main() -> None:
    """Print a table a run, from its summary.json."""
    for run_dir in map(Path, sys.argv[1:]):
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
        trials, minutes = summary["trials"], summary["wall_seconds"] / 60
        ended = f"{trials['completed']} trials completed, {trials['stopped']} stopped, {trials['failed']} failed"
        print(f"Seed {summary['seed']}: {minutes:.1f} minutes, {ended}; hypervolume {summary['hypervolume']:.4f}.\n")
        print("| factor | compression | validation error | test error | 95 % |\n|---|---|---|---|---|")
        for m in summary["front"]:
            interval = f"{m['test_error_low']:.2f}-{m['test_error_high']:.2f}"
            errors = f"{m['val_error']:.2f} % | {m['test_error']:.2f} % | {interval}"
            print(f"| {m['factor']:.1f}x | {m['compression']:.5f} | {errors} |")
        print()


if __name__ == "__main__":
    main()
