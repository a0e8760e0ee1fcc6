"""Tests a front on the test images, once: what was measured of some weights is kept, and never measured again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tune_prune.common.errors import UserError
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.checkpoint import Checkpoint
from tune_prune.results import test_record
from tune_prune.results.confidence import Interval, find_interval
from tune_prune.results.front import Member, TestResult
from tune_prune.results.test_record import TestRecord
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.fingerprints import hash_tensors, hash_texts
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.tasks.metrics import ERROR, evaluate
from tune_prune.tasks.models import to_device
from tune_prune.tasks.per_sample import measure_samples
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.task import Task


@dataclass(frozen=True)
class FrontTest:
    """Test results: of `members` by id, and of the dense model; what was not tested is left out, or None."""

    members: Mapping[str, TestResult]
    dense: TestResult | None

    def covers(self, members: Sequence[Member]) -> bool:
        """Whether the dense model and each of these members were tested."""
        return self.dense is not None and all(member.id in self.members for member in members)


def read_front_test(run_dir: Path, members: Sequence[Member], task: Task, refitted: Mapping[str, str]) -> FrontTest:
    """Reads what the run directory holds of a front's test results.

    Members are tested with the weights in their checkpoints; `refitted` has the ids of those that were refitted.
    """
    record = test_record.read(run_dir, task.metric)
    if not record.metrics:
        return FrontTest({}, None)
    results = {
        member.id: record.result(_hash_member(run_dir, member), refit=member.id in refitted) for member in members
    }
    tested = {id_: result for id_, result in results.items() if result is not None}
    return FrontTest(tested, record.result(hash_tensors(task.weights)))


def evaluate_front(
    run_dir: Path, members: Sequence[Member], task: Task, load_test: Callable[[], AnySplit], device: torch.device
) -> None:
    """Reads the test images and tests the dense model and each member's checkpoint, as it is on disk.

    What the run directory holds of the same images is not measured again; each result is written at once.
    """
    split = load_test()
    data = hash_texts(f"{key} {value}" for key, value in split.fingerprint().items())
    record = test_record.read(run_dir, task.metric)
    if record.data != data:
        record = TestRecord(split.count, data, metric=task.metric)
    record, split = replace(record, reads=record.reads + 1), split.to(device)

    def measure(weights: str, model: Callable[[], torch.nn.Module]) -> TestRecord:
        if weights in record.metrics:
            return record
        network = model()
        value = evaluate(network, split).metric
        found = replace(record, metrics={**record.metrics, weights: value})
        if further := measure_further(network, split, "test"):
            found = replace(found, further={**record.further, weights: further})
        if not isinstance(split, BatchSplit) or task.metric == ERROR:
            return found
        interval = measure_interval(network, split, value)
        return replace(found, intervals={**record.intervals, weights: interval})

    record = measure(hash_tensors(task.weights), lambda: task.dense_model(device))
    test_record.write(run_dir, record)
    for member in members:
        path = run_dir / str(member.point.checkpoint)
        saved = checkpoint.read(path)
        model, mask = checkpoint.restore(saved, str(path))
        if masks.compression(mask) != member.point.compression:
            raise RuntimeError(f"{path}: holds another compression than its trial measured")
        record = measure(_hash_weights(saved), lambda: to_device(model, device))  # noqa: B023
        test_record.write(run_dir, record)


def measure_interval(model: torch.nn.Module, split: BatchSplit, value: float) -> Interval:
    """The 95 % interval of the `value` of a metric of the user's on a split, by what samples alone measure."""
    found, name = measure_samples(model, split, value), split.objective.metric.name
    if isinstance(found, str):
        return Interval(None, None, f"none, {found}")
    interval = find_interval(found, value, name)
    if math.isfinite(interval.low or 0.0) and math.isfinite(interval.high or 0.0):
        return interval
    return Interval(None, None, f"none, {name} of some samples is too large")


def _hash_member(run_dir: Path, member: Member) -> str | None:
    """The hash of a member's weights and masks; None where its file cannot be read or holds another compression."""
    try:
        saved = checkpoint.read(run_dir / str(member.point.checkpoint))
    except UserError:
        return None
    agrees = saved.masks and masks.compression(saved.masks) == member.point.compression
    return _hash_weights(saved) if agrees else None


def _hash_weights(saved: Checkpoint) -> str:
    return hash_tensors({**saved.weights, **{f"mask/{label}": mask for label, mask in saved.masks.items()}})
