"""Where a trial begins: at the dense model, or at a recorded round that removes nothing which the trial keeps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tune_prune import pareto
from tune_prune.records import PointRecord, TrialRecord


@dataclass(frozen=True)
class Start:
    """A round to go on from: its trial, its file relative to the run directory, and the ratios that it reached."""

    trial: int
    round: int
    checkpoint: str
    ratios: Mapping[str, float]

    @classmethod
    def at(cls, record: TrialRecord, point: PointRecord) -> "Start":
        """A round of a record, whose weights were kept."""
        assert point.checkpoint is not None
        return cls(record.trial, point.round, point.checkpoint, point.ratios)


def nearest(
    records: Iterable[TrialRecord],
    ratios: Mapping[str, float],
    max_error: float,
    there: Callable[[str], bool],
    max_compression: float = 1.0,
) -> Start | None:
    """The round to begin at on the way to these ratios; None means the dense model.

    Of the rounds whose ratios are nowhere above these, whose validation error in percent and whose compression are at
    most so high, and whose weights are `there`, the most compressed that no other dominates: what is left to prune and
    to retrain is least.
    """
    in_order = sorted(records, key=lambda record: record.trial)
    every = [(record, point) for record in in_order for point in record.points if point.checkpoint]
    good = [(r, p) for r, p in every if p.val_error <= max_error and p.compression <= max_compression]
    within = [made for made in good if _nested(made[1].ratios, ratios)]
    within = [made for made in within if there(str(made[1].checkpoint))]
    front = pareto.front([(point.compression, point.val_error) for _, point in within])
    return Start.at(*within[front[-1]]) if front else None


def _nested(inner: Mapping[str, float], outer: Mapping[str, float]) -> bool:
    return all(ratio <= outer.get(label, 0.0) for label, ratio in inner.items())


def lineage(record: TrialRecord, by_trial: Mapping[int, TrialRecord]) -> list[tuple[TrialRecord, int]]:
    """The trials, and the rounds of theirs, that a trial's weights came through before it, the earliest first."""
    path: list[tuple[TrialRecord, int]] = []
    while record.parent is not None:
        parent = by_trial[record.parent]
        path.append((parent, record.parent_round or parent.last.round))
        record = parent
    return path[::-1]
