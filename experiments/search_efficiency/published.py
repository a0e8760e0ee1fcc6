"""The fronts of whole searches, on test images, beside the published results for their network.

    python experiments/search_efficiency/published.py OUT_DIR [NAME [MODEL]]

Reads OUT_DIR/fronts/NAME-SEED.csv; NAME is whole unless given, and MODEL lenet_300_100 or lenet5_caffe. For every
published result: the front's lowest test error at no more weights. And the hypervolume below the model's limit of test
errors, of each front and of all published results together.
"""

import csv
import sys
from pathlib import Path

from tune_prune.results.pareto import hypervolume

LIMITS = {"lenet_300_100": 2.26, "lenet5_caffe": 0.98}
LENET_300_100 = {
    "sparse momentum 2019, 8.3 %": (8.3, 1.43, 1.3),
    "Han 2015": (8.2, 1.59, 1.64),
    "sparse momentum 2019, 5 %": (5.0, 1.53, 1.3),
    "ADMM 2018": (4.34, 1.60, 1.6),
    "soft weight sharing 2017": (4.3, 1.94, 1.89),
    "dynamic network surgery 2016": (1.86, 1.99, 2.28),
    "sparse momentum 2019, 1.8 %": (1.8, 1.98, 1.3),
    "GSM 2019": (1.66, 1.82, 1.81),
    "sparse momentum 2019, 1.5 %": (1.5, 2.05, 1.3),
    "sparse variational dropout 2017": (1.45, 1.92, 1.64),
    "OLMP 2018": (0.87, 2.18, 2.27),
}
LENET5_CAFFE = {
    "sparse momentum 2019, 9.3 %": (9.3, 0.64, 0.6),
    "Han 2015": (8.35, 0.77, 0.8),
    "sparse momentum 2019, 5 %": (5.0, 0.69, 0.6),
    "SCANN": (2.2, 0.72, 0.72),
    "sparse momentum 2019, 2 %": (2.0, 0.76, 0.6),
    "ADMM 2018": (1.4, 0.8, 0.8),
    "sparse momentum 2019, 1 %": (1.0, 0.83, 0.6),
    "dynamic network surgery 2016": (0.924, 0.91, 0.91),
    "GSM 2019, 0.80 %": (0.8, 0.78, 0.79),
    "soft weight sharing 2017": (0.5, 0.97, 0.88),
    "sparse variational dropout 2017": (0.36, 0.75, 0.8),
    "OLMP 2018": (0.334, 0.91, 0.91),
    "GSM 2019, 0.33 %": (0.33, 0.94, 0.79),
}
"""Percent of the weights kept, test error in percent, and that of the dense model, as for the other network."""

PUBLISHED = {"lenet_300_100": LENET_300_100, "lenet5_caffe": LENET5_CAFFE}

Points = list[tuple[float, float]]


def front(path: Path) -> Points:
    """(compression, test error) of a front's members."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(float(row["compression"]), float(row["test_error"])) for row in csv.DictReader(file)]


def main() -> None:
    """Print the table."""
    which = sys.argv[2] if len(sys.argv) > 2 else "whole"
    model = sys.argv[3] if len(sys.argv) > 3 else "lenet_300_100"
    published, limit = PUBLISHED[model], LIMITS[model]
    paths = sorted((Path(sys.argv[1]) / "fronts").glob(f"{which}-*.csv"))
    fronts = [front(path) for path in paths]
    heads = ["result", "kept, %", "test error, %", "dense, %", *(path.stem for path in paths)]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, (kept, error, dense) in published.items():
        enough = [[e for c, e in found if c >= 1 - kept / 100] for found in fronts]
        best = [f"{min(errors):.2f}" if errors else "not reached" for errors in enough]
        print(f"| {name} | {kept} | {error} | {dense} | {' | '.join(best)} |")
    together = hypervolume([(1 - kept / 100, error) for kept, error, _ in published.values()], limit)
    volumes = [hypervolume(found, limit) for found in fronts]
    print(f"| hypervolume | | {together:.4f} | | " + " | ".join(f"{volume:.4f}" for volume in volumes) + " |")


if __name__ == "__main__":
    main()
