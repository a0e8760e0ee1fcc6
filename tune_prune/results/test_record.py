"""test_results.json of a run: what was measured on the test images, by the content of the weights.

The same weights are tested once. A run that goes on, or ends again, shows what was measured then, and the file says how
often the test images were read.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tune_prune.common import files
from tune_prune.common.parsing import read_json
from tune_prune.common.typecheck import check_fields
from tune_prune.results.certificate import Outcome
from tune_prune.results.confidence import Interval, wilson_interval
from tune_prune.results.front import TestResult
from tune_prune.tasks.metrics import ERROR, Metric
from tune_prune.tasks.sample_values import Resamples, SampleValues, read_resamples, read_sample_values

FILE = "test_results.json"


@dataclass(frozen=True)
class TestRecord:
    """Values of the `metric` on the test images, by the hash of the weights that were tested.

    `images` counts the test images, `data` is the hash of their content, `reads` counts how often they were read to
    test models. A value may be NaN, where a model's outputs are. `intervals` are of the values of a metric other than
    the error, `further` the values of further metrics by column, and `outcomes` what was measured of samples alone
    where a certificate was asked for, by the same hashes.
    """

    __test__ = False  # pytest takes classes whose names begin with Test for tests

    images: int = 0
    data: str = ""
    reads: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    metric: Metric = ERROR
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    further: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    def result(self, weights: str | None, *, refit: bool = False) -> TestResult | None:
        """What weights of this hash measured; None where they were not tested."""
        value = None if weights is None else self.metrics.get(weights)
        if weights is None or value is None:
            return None
        further = self.further.get(weights, {})
        if self.metric != ERROR:
            found = self.intervals.get(weights, Interval(None, None, ""))
            return TestResult(value, found.low, found.high, refit, found.method, further)
        low, high = wilson_interval(round(value * self.images / 100), self.images)
        return TestResult(value, low, high, refit, further=further)


def read(run_dir: Path, metric: Metric = ERROR) -> TestRecord:
    """Reads the record; an empty one where there is none or it is damaged, so that all is measured again."""
    try:
        raw = read_json(run_dir / FILE)
        values = {str(weights): _read_value(value) for weights, value in raw[_key(metric)].items()}
        intervals = {str(weights): _read_interval(one) for weights, one in raw.get("intervals", {}).items()}
        further = {
            str(weights): {str(name): _read_value(value) for name, value in one.items()}
            for weights, one in raw.get("further", {}).items()
        }
        images, data, reads = int(raw["images"]), str(raw["data"]), int(raw["reads"])
        outcomes = {str(weights): _read_outcome(one, images) for weights, one in raw.get("outcomes", {}).items()}
        found = TestRecord(images, data, reads, values, metric, intervals, further, outcomes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return TestRecord(metric=metric)
    if metric == ERROR and not all(0 <= value <= 100 for value in values.values()):
        return TestRecord(metric=metric)
    return found if found.images > 0 else TestRecord(metric=metric)


def write(run_dir: Path, record: TestRecord) -> None:
    """Writes the record, whole or not at all."""
    values = _make_json(record.metrics)
    content: dict[str, object] = {
        "images": record.images,
        "data": record.data,
        "reads": record.reads,
        _key(record.metric): values,
    }
    if record.intervals:
        content["intervals"] = {weights: asdict(interval) for weights, interval in record.intervals.items()}
    if record.further:
        content["further"] = {weights: _make_json(further) for weights, further in record.further.items()}
    if record.outcomes:
        content["outcomes"] = {weights: _write_outcome(outcome) for weights, outcome in record.outcomes.items()}
    files.write_text(run_dir / FILE, json.dumps(content, indent=1) + "\n")


def _make_json(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values as JSON, which has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _read_value(value: object) -> float:
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def _read_interval(raw: Mapping[str, object]) -> Interval:
    """An interval; raises as `TestRecord` does not allow it: `TypeError` or `ValueError` where it is damaged."""
    found = Interval(**raw)  # type: ignore[arg-type]
    check_fields(found)
    if any(end is not None and not math.isfinite(end) for end in (found.low, found.high)):
        raise ValueError("an end of an interval is no number")
    return found


def _write_outcome(outcome: Outcome) -> dict[str, object]:
    if isinstance(outcome, SampleValues | Resamples):
        return outcome.to_dict()
    return {"none": outcome} if isinstance(outcome, str) else {"wrong": list(outcome)}


def _read_outcome(raw: Mapping[str, object], images: int) -> Outcome:
    """An outcome; raises as `TestRecord` does not allow it: `KeyError`, `TypeError` or `ValueError`."""
    if "none" in raw:
        return str(raw["none"])
    if "mean" in raw:
        return read_sample_values(raw)
    if "without" in raw:
        return read_resamples(raw)
    wrong = raw["wrong"]
    if not isinstance(wrong, list) or not all(isinstance(number, int) and 0 <= number < images for number in wrong):
        raise ValueError("the numbers of wrong samples are no list of numbers of samples")
    return tuple(wrong)


def _key(metric: Metric) -> str:
    """What the file calls the values."""
    return "errors" if metric == ERROR else metric.test
