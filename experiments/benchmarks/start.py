"""What it takes to begin: the import, `--help`, and the memory of workers.

    python experiments/benchmarks/start.py [REPEATS]

Seconds of `import tune_prune` and of `tune-prune --help` in new processes. Then a search of lenet5, and its workers'
unique set sizes (what each would free if it ended), read from /proc every half second. Writes start.json.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from common import spread, write

PYTHON = sys.executable


def took(*arguments: str) -> float:
    """Seconds of a process."""
    began = time.perf_counter()
    subprocess.run([PYTHON, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def unique_mb(pid: str) -> float:
    """A process's private pages in MB; 0 once it is gone."""
    try:
        lines = Path("/proc", pid, "smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def workers() -> list[str]:
    """The processes that run trials: Ray's, and with torch in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::") and "libtorch_cpu" in path.with_name("maps").read_text():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def memory() -> dict[str, float]:
    """The most that each worker held, by its process number."""
    most: dict[str, float] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            for pid in workers():
                most[pid] = max(most.get(pid, 0.0), unique_mb(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    with tempfile.TemporaryDirectory() as folder:
        took("-m", "tune_prune", "search", "--budget", "6", "--quiet", "--run-dir", f"{folder}/run")
    over.set()
    thread.join()
    return most


def main() -> None:
    """Measure and print."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    runs = {"import": ["-c", "import tune_prune"], "help": ["-m", "tune_prune", "--help"], "python": ["-c", "pass"]}
    times = {name: [took(*arguments) for _ in range(repeats)] for name, arguments in runs.items()}
    for name, values in times.items():
        print(f"{name}: {spread(values, 3)} s")
    held = sorted(memory().values())
    print(f"unique set size of {len(held)} workers at their most: {', '.join(f'{mb:.0f}' for mb in held)} MB")
    write("start", {"seconds": times, "workers_mb": held, "median_mb": statistics.median(held)})


if __name__ == "__main__":
    main()
