"""The weights of rounds on disk: those that may still be wanted stay, the others go."""

from collections.abc import Collection, Sequence
from pathlib import Path

from tune_prune import pareto
from tune_prune.records import PointRecord, TrialRecord

STORE = 48
"""How many rounds are kept, in fronts from the first on, for later trials to begin at; the last front is kept whole."""


def wanted(records: Sequence[TrialRecord], in_use: Collection[str]) -> set[str]:
    """The checkpoints to keep: the feasible front's, what is worth beginning at, and those `in_use`, begun at now."""
    # in the order of trials, as the front has it: of equal points the same one must stay that is reported
    records = sorted(records, key=lambda record: record.trial)
    every = [point for record in records for point in record.points if point.checkpoint]
    keep = _front([point for point in every if point.feasible])
    keep += _fronts(every, STORE)
    return {point.checkpoint for point in keep if point.checkpoint} | set(in_use)


def _fronts(points: Sequence[PointRecord], at_least: int) -> list[PointRecord]:
    """The front, the front of what is left, and so on, until there are so many points."""
    found: list[PointRecord] = []
    while len(found) < at_least and (layer := _front(points)):
        gone = {id(point) for point in layer}
        points = [point for point in points if id(point) not in gone]
        found += layer
    return found


def _front(points: Sequence[PointRecord]) -> list[PointRecord]:
    return [points[i] for i in pareto.front([(p.compression, p.val_error) for p in points])]


def sweep(run_dir: Path, records: Sequence[TrialRecord], in_use: Collection[str]) -> None:
    """Delete the checkpoints of ended trials that are not wanted; those of running trials are left alone."""
    keep = wanted(records, in_use)
    for record in records:
        for point in record.points:
            if point.checkpoint and point.checkpoint not in keep:
                (run_dir / point.checkpoint).unlink(missing_ok=True)
