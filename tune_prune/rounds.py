"""The weights of rounds on disk: those that may still be wanted stay, the others go."""

from collections.abc import Collection, Sequence
from pathlib import Path

from tune_prune import pareto
from tune_prune.records import PointRecord, TrialRecord

LAYERS = 2
"""How many fronts of unfinished trials are kept: what is just behind the first may be the better one to finish."""


def wanted(records: Sequence[TrialRecord], parents: Collection[int]) -> set[str]:
    """The checkpoints to keep: the feasible front's, parents', and those of trials that are worth finishing."""
    # in the order of trials, as the front has it: of equal points the same one must stay that is reported
    records = sorted(records, key=lambda record: record.trial)
    points = [point for record in records for point in record.points if point.checkpoint]
    keep = _front([point for point in points if point.feasible])
    keep += [r.last for r in records if r.trial in parents and r.points]
    rest = [r.last for r in records if r.state == "complete" and r.parent is None and r.trial not in parents]
    for _ in range(LAYERS):
        layer = _front(rest)
        keep += layer
        rest = [point for point in rest if point not in layer]
    return {point.checkpoint for point in keep if point.checkpoint}


def _front(points: Sequence[PointRecord]) -> list[PointRecord]:
    return [points[i] for i in pareto.front([(p.compression, p.val_error) for p in points])]


def sweep(run_dir: Path, records: Sequence[TrialRecord], parents: Collection[int]) -> None:
    """Delete the checkpoints of ended trials that are not wanted; those of running trials are left alone."""
    keep = wanted(records, parents)
    for record in records:
        for point in record.points:
            if point.checkpoint and point.checkpoint not in keep:
                (run_dir / point.checkpoint).unlink(missing_ok=True)
