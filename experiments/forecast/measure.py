"""How a search's front grows with twice the training, and how well that is forecast.

    python experiments/forecast/measure.py collect CURVES NAME RUN_DIR
    python experiments/forecast/measure.py table CURVES

The first adds a run of a search to the table CURVES: run, trial, seconds of all trials so far, hypervolume, log10 of
the most compressed feasible factor. The second fits the quantiles of `results/forecast.py`, each network with an equal
weight: on the searches of lenet_300_100 in experiments/search_efficiency/results, seeds 0 to 2 with all variants, on
lenet5 there, and on the runs in CURVES whose names have no seed. It prints how often the 80 % band held, on those and
on all others. A forecast is made after every trial from `MIN_TRIALS` on, as far as it is known what came after as much
training again.
"""

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tune_prune.results import forecast, records
from tune_prune.results.constraints import Constraints
from tune_prune.results.forecast import make_forecast
from tune_prune.results.front_tracker import FrontTracker, Moment
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_results import read_run
from tune_prune.results.trial_params import TrialParams

EFFICIENCY = Path(__file__).parents[1] / "search_efficiency" / "results"
VARIANTS = ("whole", "refine", "warm_start", "initial_trials", "learn_from_rounds", "early_stopping")
LEAST_GAINS = 20
"""Networks with fewer gains are not fitted."""

COLUMNS = ["run", "trial", "seconds", "hypervolume", "log_factor"]

History = list[Moment]


def read_table(path: Path, limit: float) -> History:
    """The history of a search in a table of experiments/search_efficiency, by CPU seconds."""
    tracker, trials = FrontTracker(Constraints(limit)), dict[str, list[dict[str, str]]]()
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["compression"]:
                trials.setdefault(row["trial"], []).append(row)
    for number, rows in enumerate(trials.values()):
        points = []
        for round_, row in enumerate(rows, start=1):
            compression, error = float(row["compression"]), float(row["val_error"])
            points.append(PointRecord(round_, compression, 0.0, error, 0.0, error <= limit, 0.0, {}))
        seconds = sum(float(row["cpu_seconds"]) for row in rows)
        tracker.add(TrialRecord(number, "complete", TrialParams({}), {}, points, seconds=seconds))
    return tracker.history


def pairs(history: History) -> Iterator[tuple[int, Moment, Moment, Moment]]:
    """Each number of trials, with the moments at a quarter of their training, at all of it, and at twice as much."""
    for count in range(forecast.MIN_TRIALS, len(history)):
        now = history[count - 1]
        if 2 * now.seconds > history[-1].seconds:
            return
        if now.hypervolume > 0:
            find = forecast.find_moment
            yield count, find(history, now.seconds / 4), now, find(history, 2 * now.seconds)


def list_gains(histories: Sequence[History], name: str, least: float) -> list[float]:
    """Gains as multiples of the mean gain of the last two doublings, which is at least so much."""
    found = []
    for _, before, now, later in (pair for history in histories for pair in pairs(history)):
        mean = (getattr(now, name) - getattr(before, name)) / 2
        floor = least * now.hypervolume if name == "hypervolume" else least
        found.append((getattr(later, name) - getattr(now, name)) / max(mean, floor))
    return found


def fit(networks: Mapping[str, Sequence[History]]) -> None:
    """Prints the quantiles of gains; each network has the same weight, as a hundred of its quantiles."""
    for name, least in (("hypervolume", forecast.LEAST_GAIN), ("log_factor", forecast.LEAST_FACTOR)):
        gains = [list_gains(histories, name, least) for histories in networks.values()]
        spread = [np.quantile(found, np.linspace(0.005, 0.995, 100)) for found in gains if len(found) >= LEAST_GAINS]
        quantiles = np.round(np.quantile(np.concatenate(spread), [0.1, 0.5, 0.9]), 2)
        print(f"{name}: 10 %, 50 % and 90 % of {len(spread)} networks, {sum(map(len, gains))} gains:", quantiles)


def cover(histories: Sequence[History]) -> str:
    """The cells of a table: forecasts, and the shares that lie in the bands and above the middle."""
    gains, factors, above = list[bool](), list[bool](), list[bool]()
    for history in histories:
        for count, _, now, later in pairs(history):
            made = make_forecast(history[:count])
            assert made is not None
            gain = later.hypervolume / now.hypervolume - 1
            gains.append(made.gain.low <= gain <= made.gain.high)
            above.append(gain > made.gain.expected)
            reached = 10**later.log_factor
            factors.append(made.factor.low <= reached * (1 + 1e-9) <= made.factor.high * (1 + 2e-9))
    if not gains:
        return "0 | | | "
    shares = " | ".join(f"{statistics.mean(found):.2f}" for found in (gains, above, factors))
    return f"{len(gains)} | {shares}"


def read_curves(path: Path) -> dict[str, History]:
    """The histories in a table of `collect`."""
    found: dict[str, History] = defaultdict(list)
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found[row["run"]].append(Moment(*(float(row[name]) for name in COLUMNS[2:])))
    return found


def collect(path: Path, name: str, run_dir: Path) -> None:
    """Adds a run to a table."""
    tracker = FrontTracker(read_run(run_dir).limits)
    for record in records.read_all(run_dir):
        tracker.add(record)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS] if new else [])
        for number, now in enumerate(tracker.history):
            writer.writerow([name, number, f"{now.seconds:.1f}", now.hypervolume, now.log_factor])


def main() -> None:
    """See the top of the file."""
    if sys.argv[1] == "collect":
        collect(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
        return
    curves = read_curves(Path(sys.argv[2]))
    whole = [read_table(EFFICIENCY / f"{name}-{seed}.csv", 2.25) for name in VARIANTS for seed in (0, 1, 2)]
    fitted = {"lenet_300_100": whole, "lenet5": [read_table(EFFICIENCY / "lenet5" / "whole-0.csv", 1.04)]}
    fitted |= {name: [history] for name, history in curves.items() if "seed" not in name}
    held_out = {f"lenet_300_100, seed {seed}": read_table(EFFICIENCY / f"whole-{seed}.csv", 2.25) for seed in (3, 4)}
    held_out |= {name: history for name, history in curves.items() if "seed" in name}
    fit(fitted)
    print("\n| run | forecasts | gain in its band | above the middle | factor in its band |\n|---|---|---|---|---|")
    for name, histories in fitted.items():
        print(f"| {name} | {cover(histories)} |")
    for name, history in held_out.items():
        print(f"| {name}, held out | {cover([history])} |")
    print(f"| all that were held out | {cover([*held_out.values()])} |")


if __name__ == "__main__":
    main()
