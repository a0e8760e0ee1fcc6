"""What chooses a front better, counted errors or estimates: test errors of all points of a search.

    python experiments/selection/measure.py search FLAGS OF A SEARCH
    python experiments/selection/measure.py test RUN_DIR TABLE
    python experiments/selection/measure.py table LIMIT TABLE...

The first is `launch.py`, but deletes no checkpoint. The second measures every round whose weights are there on MNIST's
test images, and writes trial, round, compression, validation error and loss, and test error, for this question alone:
nothing of the search is chosen by them. The third selects the front below LIMIT percent by counts and by estimates, and
prints what it comes to on test images.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path, PosixPath

import numpy as np
import torch

from tune_prune.hpo.checkpoint_store import CheckpointStore
from tune_prune.pruning import checkpoint
from tune_prune.results import records
from tune_prune.results.constraints import Constraints
from tune_prune.results.estimates import OWN_SHARE, estimate_all
from tune_prune.results.front import find_front
from tune_prune.results.pareto import hypervolume
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate

COLUMNS = ["trial", "round", "compression", "val_error", "val_loss", "test_error"]
IMAGES = 10_000
"""Validation images, and test images, of MNIST."""


class Kept(PosixPath):
    """A file that stays when it is deleted."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Does nothing."""


def search(flags: list[str]) -> None:
    """Searches, and deletes no checkpoint."""
    from tune_prune.cli import main

    CheckpointStore._path = lambda self, point: Kept(self._run_dir / str(point.checkpoint))  # type: ignore[method-assign]
    sys.argv[1:] = flags
    main.main("search")


def test(run_dir: Path, table: Path) -> None:
    """Measures the rounds of a search on test images."""
    torch.set_num_threads(1)
    images = load_data("mnist").load_test()
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in records.read_all(run_dir):
            for point in record.points:
                path = run_dir / records.checkpoint_name(record.trial, point.round)
                if path.exists():
                    model, _ = checkpoint.restore(checkpoint.read(path), str(path))
                    values = point.compression, point.val_metric, point.val_loss, evaluate(model, images).metric
                    writer.writerow([record.trial, point.round, *values])


def read(path: Path, limit: float) -> tuple[list[TrialRecord], dict[tuple[int, int], float]]:
    """The trials in a table, and the test error of each trial's rounds."""
    points, tested = defaultdict[int, list[PointRecord]](list), {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            trial, round_, (compression, error, loss, test) = (
                int(row["trial"]),
                int(row["round"]),
                map(float, [*row.values()][2:]),
            )
            points[trial].append(PointRecord(round_, compression, 0.0, error, loss, error <= limit, 0.0, {}))
            tested[trial, round_] = test
    return [TrialRecord(trial, "complete", TrialParams({}), {}, rounds) for trial, rounds in points.items()], tested


def describe(path: Path, limit: float) -> None:
    """Prints the rows of a table's search."""
    found, tested = read(path, limit)
    for name, judged in (("counts", found), ("estimates", estimate_all(found, Constraints(limit), IMAGES))):
        members = find_front(judged, Constraints(limit))
        kept = [(m.point.compression, m.point.judged, tested[m.record.trial, m.point.round]) for m in members]
        chosen, test = (hypervolume([(point[0], point[i]) for point in kept], limit) for i in (1, 2))
        print(f"| {path.stem} | {name} | {len(kept)} | {chosen:.4f} | {test:.4f} | {chosen - test:+.4f} |")


def fit(paths: list[Path], limit: float) -> None:
    """Prints how well counts and estimates foretell test errors, and the share of noise that is a count's own."""
    for path in paths:
        found, tested = read(path, limit)
        pairs = [
            (p.val_metric, p.judged, tested[r.trial, p.round])
            for r in estimate_all(found, Constraints(limit), IMAGES) for p in r.points if p.estimate is not None
        ]  # fmt: skip
        count, estimate, test = np.array(pairs).T
        own = float(np.var(count - estimate) / np.mean(count * (100 - count) / IMAGES))
        print(
            f"{path.stem}, {len(pairs)} points: counts scatter around estimates by {own:.2f} of the binomial variance"
        )
        print(f"  (assumed: {OWN_SHARE}); test errors around counts by {np.std(test - count):.3f}", end=" ")
        print(f"points, around estimates by {np.std(test - estimate):.3f}")


def main() -> None:
    """See the top of the file."""
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "search":
        search(arguments)
    elif command == "test":
        test(*map(Path, arguments))
    else:
        limit, paths = float(arguments[0]), [*map(Path, arguments[1:])]
        fit(paths, limit)
        print("\n| search | front by | members | hypervolume as chosen | on test images | difference |")
        print("|---|---|---|---|---|---|")
        for path in paths:
            describe(path, limit)


if __name__ == "__main__":
    main()
