"""The front, measured again from other seeds: whether a member keeps the tradeoff, or was lucky once.

The front holds the lowest errors of hundreds of rounds, and the lowest of many measurements flatters. A member that is
pruned and retrained along its whole way from seeds that nothing was chosen by does not.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tune_prune.common import files
from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.warm_start import Stage, list_stages, retrace
from tune_prune.pruning import masks
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.confidence import Confirmation
from tune_prune.results.front import Member
from tune_prune.results.records import TrialRecord
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task
from tune_prune.training.loop import DivergedError


@dataclass(frozen=True)
class Repetition:
    """One thing to measure: the way to a round of a trial, from another seed. `number` counts from 1."""

    trial: int
    round: int
    number: int
    seed: int
    stages: Sequence[Stage]
    compression: float

    @property
    def file(self) -> str:
        """Where what it measures goes, relative to the run directory."""
        return f"confirm/{self.trial}-{self.round}-{self.number}.json"


Each = Callable[
    [Callable[[Task, Repetition, torch.device, CachedStatistics], float], Sequence[Repetition]],
    Iterable[tuple[Repetition, float | Exception]],
]
"""What spreads repetitions over workers, as `fanout.workers` does: each with its result, or what it raised."""


def list_repetitions(member: Member, by_trial: Mapping[int, TrialRecord], seed: int, count: int) -> list[Repetition]:
    """What confirms a member; `seed` is the search's.

    The seeds are `derive_seed(seed, -1, number)`: trials are counted from 0, so that no trial drew from one of them.
    They are the same for every member, so that members are compared under the same luck, and a larger `count` only
    adds to them.
    """
    record, point = member.record, member.point
    stages = list_stages(record, point.round, by_trial)
    return [
        Repetition(record.trial, point.round, number, derive_seed(seed, -1, number), stages, point.compression)
        for number in range(1, count + 1)
    ]


def run_repetition(task: Task, job: Repetition, device: torch.device, known: CachedStatistics) -> float:
    """The validation error, in percent, that a repetition ends with; 100 where it diverges and leaves no network."""
    try:
        state = retrace(task, job.stages, job.seed, device, known)
    except DivergedError:
        return 100.0
    if masks.compression(state.masks) != job.compression:
        raise RuntimeError("it removed another number of weights than the trial did")
    return evaluate(state.model, task.validation).error


def confirm_front(
    run_dir: Path,
    members: Sequence[Member],
    by_trial: Mapping[int, TrialRecord],
    *,
    seed: int,
    limit: float,
    count: int,
    each: Each,
) -> tuple[dict[str, Confirmation], list[str]]:
    """Repeat every member from `count` other seeds, at least 2; what the run directory has is not measured again.

    `seed` is the search's, `limit` the highest validation error in percent that keeps the tradeoff. Returns what was
    found by member id, without the members of which a repetition is missing, and a line for each that failed. Where
    `each` ends early, as on an interruption, the rest is missing and nothing is lost.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    wanted = {member.id: list_repetitions(member, by_trial, seed, count) for member in members}
    jobs = [job for row in wanted.values() for job in row]
    found = {job.file: error for job in jobs if (error := _read(run_dir / job.file, job)) is not None}
    failures = []
    for job, result in each(run_repetition, [job for job in jobs if job.file not in found]):
        if isinstance(result, Exception):
            reason = " ".join(f"{type(result).__name__}: {result}".split())
            failures.append(f"trial {job.trial}, round {job.round}, repetition {job.number} failed: {reason}")
        else:
            _write(run_dir / job.file, job, result)
            found[job.file] = result
    whole = {id_: row for id_, row in wanted.items() if all(job.file in found for job in row)}
    return {id_: Confirmation(tuple(found[job.file] for job in row), limit) for id_, row in whole.items()}, failures


def _write(path: Path, job: Repetition, error: float) -> None:
    measured = {"seed": job.seed, "compression": job.compression, "val_error": error}
    files.write_text(path, json.dumps(measured, indent=1) + "\n")


def _read(path: Path, job: Repetition) -> float | None:
    """What was measured already; None where nothing was, or the file is damaged or another repetition's."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        error = float(raw["val_error"])
        same = (raw["seed"], raw["compression"]) == (job.seed, job.compression)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return error if same and 0 <= error <= 100 else None
