"""test_results.json of a run: what was measured on the test images, by the content of the weights.

The same weights are tested once. A run that goes on, or ends again, shows what was measured then, and the file says how
often the test images were read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tune_prune.common import files
from tune_prune.common.parsing import read_json
from tune_prune.results.confidence import wilson_interval
from tune_prune.results.front import TestResult

FILE = "test_results.json"


@dataclass(frozen=True)
class TestRecord:
    """Values of the metric on the test images, by the hash of the weights that were tested.

    `images` counts the test images, `data` is the hash of their content, `reads` counts how often they were read to
    test models.
    """

    __test__ = False  # pytest takes classes whose names begin with Test for tests

    images: int = 0
    data: str = ""
    reads: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)

    def result(self, weights: str | None, *, refit: bool = False) -> TestResult | None:
        """What weights of this hash measured; None where they were not tested."""
        error = None if weights is None else self.metrics.get(weights)
        if error is None:
            return None
        return TestResult(error, *wilson_interval(round(error * self.images / 100), self.images), refit)


def read(run_dir: Path) -> TestRecord:
    """Reads the record; an empty one where there is none or it is damaged, so that all is measured again."""
    try:
        raw = read_json(run_dir / FILE)
        errors = {str(weights): float(error) for weights, error in raw["errors"].items()}
        found = TestRecord(int(raw["images"]), str(raw["data"]), int(raw["reads"]), errors)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return TestRecord()
    return found if found.images > 0 and all(0 <= error <= 100 for error in errors.values()) else TestRecord()


def write(run_dir: Path, record: TestRecord) -> None:
    """Writes the record, whole or not at all."""
    content = {"images": record.images, "data": record.data, "reads": record.reads, "errors": dict(record.metrics)}
    files.write_text(run_dir / FILE, json.dumps(content, indent=1) + "\n")
