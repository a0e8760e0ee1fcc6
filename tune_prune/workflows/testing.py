"""Tests a front on the test images, once: what was measured of some weights is kept, and never measured again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from tune_prune.common.errors import UserError
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.checkpoint import Checkpoint
from tune_prune.results import test_record
from tune_prune.results.certificate import Certificate, Claim, Outcome, certify, pair
from tune_prune.results.confidence import Interval, find_interval, find_resampled_interval
from tune_prune.results.front import Member, TestResult
from tune_prune.results.test_record import TestRecord
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.fingerprints import hash_tensors, hash_texts
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.tasks.metrics import ERROR, evaluate
from tune_prune.tasks.models import to_device
from tune_prune.tasks.per_sample import CERTIFIED_SAMPLES, SAMPLES
from tune_prune.tasks.resampling import SECONDS, measure_by_samples
from tune_prune.tasks.sample_values import Resamples, SampleValues
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.task import Task


@dataclass(frozen=True)
class FrontTest:
    """Test results: of `members` by id, and of the dense model; what was not tested is left out, or None.

    `certificates` are of all members by id, where they were asked for and all is measured that they need.
    """

    members: Mapping[str, TestResult]
    dense: TestResult | None
    certificates: Mapping[str, Certificate] = field(default_factory=dict)


def read_front_test(
    run_dir: Path, members: Sequence[Member], task: Task, refitted: Mapping[str, str], claim: Claim | None = None
) -> FrontTest:
    """Reads what the run directory holds of a front's test results, and tests a claim of its members by them.

    Members are tested with the weights in their checkpoints; `refitted` has the ids of those that were refitted.
    """
    record = test_record.read(run_dir, task.metric)
    if not record.metrics:
        return FrontTest({}, None)
    weights = {member.id: _hash_member(run_dir, member) for member in members}
    results = {id_: record.result(found, refit=id_ in refitted) for id_, found in weights.items()}
    tested = {id_: result for id_, result in results.items() if result is not None}
    dense = hash_tensors(task.weights)
    return FrontTest(tested, record.result(dense), _certify(record, weights, dense, claim) if claim else {})


def _certify(record: TestRecord, weights: Mapping[str, str | None], dense: str, claim: Claim) -> dict[str, Certificate]:
    """The certificates of members, whose weights have these hashes; none where an outcome is missing."""
    known = record.outcomes
    if not known.keys() >= {dense, *weights.values()}:
        return {}
    pairs = [pair(known[str(found)], known[dense], record.images, record.metric) for found in weights.values()]
    return dict(zip(weights, certify(pairs, claim.tradeoff, claim.level), strict=True))


def evaluate_front(
    run_dir: Path,
    members: Sequence[Member],
    task: Task,
    load_test: Callable[[], AnySplit],
    device: torch.device,
    *,
    with_outcomes: bool = False,
    on_tested: Callable[[], None] = lambda: None,
) -> None:
    """Reads the test images and tests the dense model and each member's checkpoint, as it is on disk.

    What the run directory holds of the same images is not measured again; each result is written at once. With outcomes
    it is also kept what each sample alone measures, which certificates need. `on_tested` is called after each model.
    """
    split = load_test()
    data = hash_texts(f"{key} {value}" for key, value in split.fingerprint().items())
    record = test_record.read(run_dir, task.metric)
    if record.data != data:
        record = TestRecord(split.count, data, metric=task.metric)
    record, split = replace(record, reads=record.reads + 1), split.to(device)

    def measure(weights: str, model: Callable[[], torch.nn.Module]) -> TestRecord:
        known = weights in record.metrics
        if known and (weights in record.outcomes or not with_outcomes):
            return record
        network, found = model(), record
        if not known:
            value = evaluate(network, split).metric
            found = replace(found, metrics={**found.metrics, weights: value})
            if further := measure_further(network, split, "test"):
                found = replace(found, further={**found.further, weights: further})
        if task.metric == ERROR and not with_outcomes:
            return found
        outcome = _measure_outcome(network, split, found.metrics[weights], with_outcomes)
        if task.metric != ERROR and not known:
            interval = _make_interval(outcome, found.metrics[weights], task.metric.name)
            found = replace(found, intervals={**found.intervals, weights: interval})
        return replace(found, outcomes={**found.outcomes, weights: outcome}) if with_outcomes else found

    record = measure(hash_tensors(task.weights), lambda: task.dense_model(device))
    test_record.write(run_dir, record)
    on_tested()
    for member in members:
        path = run_dir / str(member.point.checkpoint)
        saved = checkpoint.read(path)
        model, mask = checkpoint.restore(saved, str(path))
        if masks.compression(mask) != member.point.compression:
            raise RuntimeError(f"{path}: holds another compression than its trial measured")
        record = measure(_hash_weights(saved), lambda: to_device(model, device))  # noqa: B023
        test_record.write(run_dir, record)
        on_tested()


def _measure_outcome(model: torch.nn.Module, split: AnySplit, value: float, certifying: bool) -> Outcome:
    """Measures samples alone or resamples, more where it is for certificates; `value` is the whole split's metric."""
    if isinstance(split, BatchSplit) and split.objective.metric != ERROR:
        how = (CERTIFIED_SAMPLES, math.inf) if certifying else (SAMPLES, SECONDS)
        return measure_by_samples(model, split, value, *how)
    wrong = split.find_wrong(model)
    return "the error is of labels, of which a sample has several or none" if wrong is None else tuple(wrong)


def _make_interval(outcome: Outcome, value: float, name: str) -> Interval:
    """The 95 % interval of the `value` of a metric of the user's on a split, by what samples alone measure."""
    if isinstance(outcome, Resamples):
        return find_resampled_interval(outcome, value)
    if not isinstance(outcome, SampleValues):
        return Interval(None, None, f"none, {outcome}")
    interval = find_interval(outcome, value, name)
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
