"""Published results of unstructured pruning on MNIST, by built-in model: published.csv."""

import csv
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_suffix(".csv")


class Published(NamedTuple):
    """A published network: percent of the weights kept, no biases counted, and test error in percent.

    Mostly single runs, and many were chosen on test images.
    """

    work: str
    kept: float
    error: float


def find_published(model: str, data: str) -> list[Published]:
    """The results for a model; none but for the built-in ones, on MNIST."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["model"], "mnist") == (model, data)]
    return [Published(row["work"], float(row["kept"]), float(row["error"])) for row in rows]
