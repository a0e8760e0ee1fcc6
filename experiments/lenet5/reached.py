"""After how many processor seconds runs had their first member of the front of at least 100x at no more than 0.94 %.

    python experiments/lenet5/reached.py RUN_DIR ...

The seconds are those of all trials that had ended by then, that one's among them; test errors are those of the end.
"""

import sys
from pathlib import Path

import pandas

from tune_prune.results import records

FACTOR, ERROR = 99.95, 0.94


def main() -> None:
    """Prints a line for each run."""
    for name in sys.argv[1:]:
        run_dir = Path(name)
        front = pandas.read_csv(run_dir / "pareto.csv")
        members = set(front[(front["factor"] >= FACTOR) & (front["test_error"] <= ERROR)]["trial"])
        ended = sorted(
            records.read_all(run_dir), key=lambda one: records.record_path(run_dir, one.trial).stat().st_mtime
        )
        seconds = 0.0
        for one in ended:
            seconds += one.cpu_seconds
            if one.trial in members:
                print(
                    f"{name}: {seconds:.0f} s, trial {one.trial}, of {sum(e.cpu_seconds for e in ended):.0f} s in all"
                )
                break
        else:
            print(f"{name}: none")


if __name__ == "__main__":
    main()
