"""Published results of unstructured pruning on MNIST, by built-in model, for a front to be compared with."""

import csv
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).with_suffix(".csv")


class Published(NamedTuple):
    """A published network: percent of the weights kept, no biases counted, and test error in percent.

    Mostly single runs, and many were chosen on test images.
    """

    work: str
    kept: float
    error: float

    @property
    def factor(self) -> float:
        """How many times fewer weights it has."""
        return 100 / self.kept


def find_published(model: str, data: str) -> list[Published]:
    """The published results for a model; none but for the built-in ones, on MNIST."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["model"], "mnist") == (model, data)]
    return [Published(row["work"], float(row["kept"]), float(row["error"])) for row in rows]
