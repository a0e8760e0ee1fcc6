"""What Ray and the search around it cost a trial: a search whose trials sleep in place of training.

    OMP_NUM_THREADS=1 python experiments/benchmarks/orchestration.py TRIALS WORKERS SECONDS
    python experiments/benchmarks/orchestration.py picture WORKERS

TRIALS of lenet_300_100's space, WORKERS at a time, each SECONDS long. Prints how much of the workers' time was slept,
from the moment when each had ended its first trial until the last trials, and where the driver's time went. Writes
orchestration-WORKERS.json and a picture of it; the second command draws the picture alone.
"""

import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import write
from matplotlib.figure import Figure

from tune_prune.cli import main as command_line
from tune_prune.distributed import tuner
from tune_prune.distributed.trainable import PruneTrainable, from_ray
from tune_prune.distributed.trial_runner import RoundResult, TrialRunner
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.pruning.iterative import Point
from tune_prune.results import records

OURS = {
    ("searcher.py", "suggest"): "suggestions",
    ("searcher.py", "on_trial_complete"): "ended trials",
    ("searcher.py", "on_trial_result"): "the console's numbers",
    ("searcher.py", "should_stop"): "early stopping",
    ("worker.py", "wait"): "waiting for workers",
}
"""Functions of the driver, by file and name, and what they do."""

TITLE = "Most of the driver's time is spent waiting for workers"


class SleepingRunner(TrialRunner):
    """Runs trials that sleep and make up an infeasible point; everything else is done as for any trial."""

    sleep_seconds = 0.0

    def run_round(self) -> RoundResult:
        """Runs the whole trial."""
        self._rounds = self._start_rounds()
        time.sleep(self.sleep_seconds)
        ratios = self._plan.ratios_at(self._plan.rounds)
        removed = sum(ratios.values()) / len(ratios)
        error = 1.1 + 0.004 * sum(1 / (1 - ratio) for ratio in ratios.values())
        point = Point(self._plan.rounds, removed, error, error / 30, self.sleep_seconds, ratios)
        self._points.append(self._save_point(point, keep=True))
        return self._report("complete")


class SleepingTrainable(PruneTrainable):
    """The trainable of such trials."""

    def setup(self, config: dict[str, Any], worker_data: WorkerData) -> None:  # type: ignore[override]
        """Makes the runner of a worker."""
        self._runner = SleepingRunner(worker_data, from_ray(config))


def efficiency(run_dir: Path, workers: int, nap: float) -> tuple[float, float]:
    """The share of the workers' time that was slept, and the seconds a trial took a worker beyond its sleep."""
    ends = sorted(records.record_path(run_dir, r.trial).stat().st_mtime for r in records.read_all(run_dir))
    first, last = ends[workers - 1], ends[-workers]
    done = len(ends) - 2 * workers + 1
    busy = (last - first) * workers
    return done * nap / busy, busy / done - nap


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Seconds of the driver, by what it did."""
    stats = pstats.Stats(profile)
    total = max(cumulative for _, _, _, cumulative, _ in stats.stats.values())  # type: ignore[attr-defined]
    found = dict.fromkeys(OURS.values(), 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        said = OURS.get((Path(file).name, function))
        if said is not None:
            found[said] = max(found[said], cumulative)
    return found | {"Ray's own, start and end": total - sum(found.values())}


def draw(path: Path, seconds: dict[str, float], title: str) -> None:
    """A bar for each thing that took the driver half a second or more, the longest on top."""
    shown = {said: took for said, took in sorted(seconds.items(), key=lambda item: item[1]) if took >= 0.5}
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(shown)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh([*shown], [*shown.values()], color="#0072B2")
    axes.bar_label(bars, [f" {took:.0f} s" for took in shown.values()])
    axes.set_xlabel("seconds of the driver")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")
    figure.savefig(path)


def main() -> None:
    """Search, then say what it cost; `picture WORKERS` draws what was measured before."""
    if sys.argv[1] == "picture":
        path = Path(__file__).with_name(f"orchestration-{sys.argv[2]}.json")
        draw(path.with_suffix(".png"), json.loads(path.read_text(encoding="utf-8"))["driver_s"], TITLE)
        return
    trials, workers, nap = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    SleepingRunner.sleep_seconds = nap
    tuner.PruneTrainable = SleepingTrainable  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        run_dir, share = Path(folder) / "run", (os.cpu_count() or 1) / workers
        sys.argv[1:] = ["--space", "lenet_300_100", "--budget", str(trials), "--cpus-per-trial", str(share), "--quiet"]
        sys.argv += ["--run-dir", str(run_dir)]
        profile = cProfile.Profile()
        try:
            profile.runcall(command_line.main, "search")
        except SystemExit as ended:
            if ended.code != 3:  # nothing is feasible
                raise
        slept, overhead = efficiency(run_dir, workers, nap)
    seconds = shares(profile)
    title = f"{trials} trials of {nap:g} s, {workers} at a time: {100 * slept:.0f} % slept"
    print(f"{title}; {overhead:.3f} s a trial beyond its sleep")
    for said, took in seconds.items():
        print(f"  {said}: {took:.1f} s")
    name = f"orchestration-{workers}"
    draw(Path(__file__).with_name(f"{name}.png"), seconds, TITLE)
    write(name, {"slept": slept, "overhead_s": overhead, "driver_s": seconds})


if __name__ == "__main__":
    main()
