"""Trials per hour of a search with one worker and with two, or as many as are named.

    OMP_NUM_THREADS=1 python experiments/benchmarks/scaling.py [REPEATS [WORKERS ...]]

Searches of lenet_300_100 whose trials all do the same work, 600 steps from the dense model; trials per hour from the
moment when every worker has ended its first trial. Writes scaling.json; prints medians, ranges and factors.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import spread, write

from tune_prune.results import records

SPACE = """
[task]
model = "lenet_300_100"
data = "mnist"

[space]
final_steps = 600
distill = 0.7

[space.ratio]
"*" = {low = 0.5, high = 0.9}

[initial]
trials = 0

[features]
early_stopping = false
warm_start = false
"""


def trials_per_hour(folder: Path, workers: int) -> float:
    """Of one search; 12 trials a worker."""
    (folder / "space.toml").write_text(SPACE, encoding="utf-8")
    run_dir = folder / f"run-{workers}"
    flags = ["--space", str(folder / "space.toml"), "--budget", str(12 * workers), "--max-concurrent", str(workers)]
    command = [sys.executable, "-m", "tune_prune", "search", *flags, "--run-dir", str(run_dir), "--quiet"]
    subprocess.run(command, check=True)
    ends = sorted(records.record_path(run_dir, r.trial).stat().st_mtime for r in records.read_all(run_dir))
    return 3600 * (len(ends) - workers) / (ends[-1] - ends[workers - 1])


def main() -> None:
    """Measure by turns."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    counts = [int(word) for word in sys.argv[2:]] or [1, 2]
    found: dict[int, list[float]] = {workers: [] for workers in counts}
    for _ in range(repeats):
        for workers in counts:
            with tempfile.TemporaryDirectory() as folder:
                found[workers].append(trials_per_hour(Path(folder), workers))
    print("| workers | trials per hour | times one |\n|---|---|---|")
    for workers, rates in found.items():
        factors = [rate / one for rate, one in zip(rates, found[counts[0]], strict=True)]
        print(f"| {workers} | {spread(rates, 0)} | {spread(factors)} |")
    write("scaling", {str(workers): rates for workers, rates in found.items()} | {"median": {
        str(workers): statistics.median(rates) for workers, rates in found.items()}})  # fmt: skip


if __name__ == "__main__":
    main()
