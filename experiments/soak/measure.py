"""Measures what a long search leaks: memory, open files, processes and disk, from its first trials to its last.

    python experiments/soak/measure.py [TRIALS]

Writes soak.csv beside itself, a row for every twentieth of the trials, and prints it.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent


def measure_use(process: int, run_dir: Path) -> dict[str, float]:
    """Memory and open files of the search's own process, the number of workers, and the size of the run directory."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    commands = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.is_file()]
    return {
        "driver_mb": float(status["VmRSS"].split()[0]) / 1024,
        "open_files": len(list(Path(f"/proc/{process}/fd").iterdir())),
        "workers": sum(b"ray::PruneTrainable" in _read(path) for path in commands),
        "run_dir_mb": sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file()) / 1e6,
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def main() -> None:
    """Runs the search and measures it."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    run_dir = Path(tempfile.mkdtemp()) / "run"
    command = [sys.executable, "-m", "tune_prune", "search", "--space", "toy.toml", "--budget", str(trials), "--force"]
    began, rows = time.perf_counter(), list[dict[str, float]]()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}
    with subprocess.Popen([*command, "--run-dir", str(run_dir), "--quiet"], cwd=HERE, env=environment) as process:
        while process.poll() is None:
            done = len(list((run_dir / "results").glob("*.json"))) if (run_dir / "results").is_dir() else 0
            if done >= (len(rows) + 1) * trials / 20:
                rows.append(
                    {"trials": done, "seconds": time.perf_counter() - began} | measure_use(process.pid, run_dir)
                )
            time.sleep(0.2)
    if process.returncode != 0:
        sys.exit(f"measure.py: the search ended with {process.returncode}")
    table = pd.DataFrame(rows).round(1)
    table.to_csv(HERE / "soak.csv", index=False)
    print(table.to_string(index=False))
    early, late = table[table.trials >= trials / 10].driver_mb.iloc[[0, -1]]
    print(
        f"{trials} trials in {time.perf_counter() - began:.0f} s; driver {early:.0f} MB to {late:.0f} MB since a tenth"
    )


if __name__ == "__main__":
    main()
