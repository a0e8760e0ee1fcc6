"""Where a trial begins: at the dense model, or at a recorded round that removes nothing which the trial keeps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tune_prune.results.records import PointRecord


@dataclass(frozen=True)
class Start:
    """A round to go on from: its trial, its file relative to the run directory, and the ratios that it reached."""

    trial: int
    round: int
    checkpoint: str
    ratios: Mapping[str, float]

    @classmethod
    def at(cls, trial: int, point: PointRecord) -> "Start":
        """A round of a trial, whose weights were kept."""
        assert point.checkpoint is not None
        return cls(trial, point.round, point.checkpoint, point.reached)


def nearest(
    rounds: Iterable[tuple[int, PointRecord]],
    ratios: Mapping[str, float],
    max_error: float,
    max_compression: float = 1.0,
) -> Start | None:
    """The round to begin at on the way to these ratios; None means the dense model.

    Of the `rounds`, given with their trials, whose ratios are nowhere above these, and whose validation error in
    percent and compression are at most so high, the most compressed: what is left to prune and to retrain is least. Of
    equally compressed ones that with the fewest errors, of equal ones the first.
    """
    good = [(t, p) for t, p in rounds if p.val_error <= max_error and p.compression <= max_compression]
    within = [(trial, point) for trial, point in good if _nested(point.reached, ratios)]
    rank = [(point.compression, -point.val_error, -trial, -point.round) for trial, point in within]
    return Start.at(*within[rank.index(max(rank))]) if within else None


def _nested(inner: Mapping[str, float], outer: Mapping[str, float]) -> bool:
    return all(ratio <= outer.get(label, 0.0) for label, ratio in inner.items())
