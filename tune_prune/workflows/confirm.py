"""Confirms a front: repeats its members from other seeds, to tell whether they keep the tradeoff or were lucky once.

The front holds the best metrics of hundreds of rounds, and the best of many measurements is biased. A repetition
prunes and retrains a member again from the dense model, from a seed by which nothing was chosen, and so is not.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tune_prune.common import files
from tune_prune.common.errors import describe_error
from tune_prune.common.parsing import read_json
from tune_prune.common.seeding import derive_seed
from tune_prune.distributed.parallel import ParallelMap
from tune_prune.hpo.warm_start import Stage, list_stages, retrace
from tune_prune.pruning import masks
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.confidence import Confirmation
from tune_prune.results.constraints import Constraints
from tune_prune.results.front import Member
from tune_prune.results.records import TrialRecord
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.tasks.metrics import ERROR, Metric, evaluate
from tune_prune.tasks.task import Task
from tune_prune.training.loop import DivergedError


@dataclass(frozen=True)
class Repetition:
    """One measurement: a round of a trial, reached again through all its stages from another seed.

    `number` counts the repetitions of a member from 1.
    """

    trial: int
    round: int
    number: int
    seed: int
    stages: Sequence[Stage]
    compression: float

    @property
    def file(self) -> str:
        """The file with its result, relative to the run directory."""
        return f"confirm/{self.trial}-{self.round}-{self.number}.json"


def list_repetitions(member: Member, by_trial: Mapping[int, TrialRecord], seed: int, count: int) -> list[Repetition]:
    """Lists the repetitions that confirm a member; `seed` is the search's.

    Their seeds are `derive_seed(seed, -1, number)`. No trial drew from one of them, since trials count from 0. They are
    the same for every member, so that members are compared under the same luck, and a larger `count` only adds seeds.
    """
    record, point = member.record, member.point
    stages = list_stages(record, point.round, by_trial)
    return [
        Repetition(record.trial, point.round, number, derive_seed(seed, -1, number), stages, point.compression)
        for number in range(1, count + 1)
    ]


def run_repetition(
    task: Task, job: Repetition, device: torch.device, cached: CachedStatistics
) -> dict[str, float | None]:
    """Measures one repetition: metric and further metrics on validation data, by column; None is no finite number.

    Where training diverges, that is each, but for the error, which is 100 % then.
    """
    metrics = [task.metric, *(one.metric for one in task.validation.objective.further)]
    try:
        state = retrace(task, job.stages, job.seed, device, cached)
    except DivergedError:
        return {metric.val: 100.0 if metric == ERROR else None for metric in metrics}
    if masks.compression(state.masks) != job.compression:
        raise RuntimeError("it removed another number of weights than the trial did")
    found = {task.metric.val: evaluate(state.model, task.validation).metric}
    found |= measure_further(state.model, task.validation, "val")
    return {name: value if math.isfinite(value) else None for name, value in found.items()}  # JSON has no infinity


def confirm_front(
    run_dir: Path,
    members: Sequence[Member],
    by_trial: Mapping[int, TrialRecord],
    metric: Metric,
    *,
    seed: int,
    count: int,
    parallel_map: ParallelMap,
) -> list[str]:
    """Repeats every member from `count` other seeds, at least 2, except for repetitions that the run directory holds.

    `seed` is the search's. Returns a line for each repetition that failed. Where `parallel_map` ends early, as on an
    interruption, the results so far are on disk.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    jobs = [job for member in members for job in list_repetitions(member, by_trial, seed, count)]
    failures = []
    missing = [job for job in jobs if _read_value(run_dir / job.file, job, metric) is None]
    for job, result in parallel_map(run_repetition, missing):
        if isinstance(result, Exception):
            failures.append(
                f"trial {job.trial}, round {job.round}, repetition {job.number} failed: {describe_error(result)}"
            )
        else:
            measured = {"seed": job.seed, "compression": job.compression, **result}
            files.write_text(run_dir / job.file, json.dumps(measured, indent=1) + "\n")
    return failures


def read_confirmations(
    run_dir: Path, members: Sequence[Member], by_trial: Mapping[int, TrialRecord], *, seed: int, limits: Constraints
) -> dict[str, Confirmation]:
    """Reads the confirmations by member id, of all repetitions that the run directory holds, by any process.

    `seed` is the search's. Of a member count the repetitions before the first that is missing; one alone confirms
    nothing.
    """
    confirmed = {}
    for member in members:
        found = list((run_dir / "confirm").glob(f"{member.record.trial}-{member.point.round}-*.json"))
        jobs = list_repetitions(member, by_trial, seed, len(found)) if found else []
        own, *others = (_read_values(run_dir, jobs, one) for one in (limits, *limits.of_further_metrics()))
        if own is not None:
            confirmed[member.id] = replace(own, others=tuple(others))
    return confirmed


def _read_values(run_dir: Path, jobs: Sequence[Repetition], limits: Constraints) -> Confirmation | None:
    """The confirmation of one metric by repetitions, as far as all of them before are there; None by fewer than two."""
    values = [_read_value(run_dir / job.file, job, limits.metric) for job in jobs]
    there = [value for value in itertools.takewhile(lambda value: value is not None, values) if value is not None]
    return Confirmation(tuple(there), limits.limit, limits.metric) if len(there) > 1 else None


def _worst(metric: Metric) -> float:
    return 100.0 if metric == ERROR else metric.value(math.inf)


def _read_value(path: Path, job: Repetition, metric: Metric) -> float | None:
    """Reads a repetition's result; None where there is none, or the file is damaged or of another repetition."""
    try:
        raw = read_json(path)
        value = _worst(metric) if raw[metric.val] is None and metric != ERROR else float(raw[metric.val])
        agrees = (raw["seed"], raw["compression"]) == (job.seed, job.compression)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return value if agrees and (metric != ERROR or 0 <= value <= 100) else None
