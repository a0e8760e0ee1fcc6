"""The fronts of whole searches, on test images, beside the published results for this network.

    python experiments/search_efficiency/published.py OUT_DIR [NAME]

Reads OUT_DIR/fronts/NAME-SEED.csv; NAME is whole unless given. For every published result: the front's lowest test
error at no more weights. And the hypervolume below 2.26 percent of test error, of each front and of all published
results together.
"""

import csv
import sys
from pathlib import Path

from tune_prune.results.pareto import hypervolume

LIMIT = 2.26
PUBLISHED = {
    "sparse momentum 2019, 8.3 %": (8.3, 1.43),
    "Han 2015": (8.2, 1.59),
    "sparse momentum 2019, 5 %": (5.0, 1.53),
    "ADMM 2018": (4.34, 1.60),
    "dynamic network surgery 2016": (1.86, 1.99),
    "sparse momentum 2019, 1.8 %": (1.8, 1.98),
    "GSM 2019": (1.66, 1.82),
    "sparse variational dropout 2017": (1.45, 1.92),
    "OLMP 2018": (0.87, 2.18),
}
"""Percent of the weights kept, and test error in percent."""

Points = list[tuple[float, float]]


def front(path: Path) -> Points:
    """(compression, test error) of a front's members."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(float(row["compression"]), float(row["test_error"])) for row in csv.DictReader(file)]


def main() -> None:
    """Print the table."""
    which = sys.argv[2] if len(sys.argv) > 2 else "whole"
    paths = sorted((Path(sys.argv[1]) / "fronts").glob(f"{which}-*.csv"))
    fronts = [front(path) for path in paths]
    heads = ["result", "kept, %", "test error, %", *(path.stem for path in paths)]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, (kept, error) in PUBLISHED.items():
        best = [min((e for c, e in found if c >= 1 - kept / 100), default=float("nan")) for found in fronts]
        print(f"| {name} | {kept} | {error} | " + " | ".join(f"{e:.2f}" for e in best) + " |")
    together = hypervolume([(1 - kept / 100, error) for kept, error in PUBLISHED.values()], LIMIT)
    volumes = [hypervolume(found, LIMIT) for found in fronts]
    print(f"| hypervolume | | {together:.4f} | " + " | ".join(f"{volume:.4f}" for volume in volumes) + " |")


if __name__ == "__main__":
    main()
