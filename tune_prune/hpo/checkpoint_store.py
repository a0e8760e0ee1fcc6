"""Keeps the checkpoints of rounds that the front or later trials may need, and deletes the others."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tune_prune.results import pareto
from tune_prune.results.constraints import NO_CONSTRAINTS
from tune_prune.results.estimates import Estimates
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.tasks.metrics import Metric

MIN_KEPT = 48
"""How many rounds are kept for warm starts, at least: front after front, the last one whole."""


class CheckpointStore:
    """The rounds of ended trials whose checkpoints are on disk: `points` with their trials, in the order of trials.

    A deleted round is forgotten, so that a sweep costs no more after thousands of trials than after a hundred.
    """

    def __init__(self, run_dir: Path, estimates: Estimates | None = None) -> None:
        self._run_dir, self._estimates = run_dir, estimates or Estimates(NO_CONSTRAINTS, 0)
        self.points: list[tuple[int, PointRecord]] = []

    def sweep(self, ended: Iterable[TrialRecord], in_use: Collection[str]) -> None:
        """Adds the rounds of trials that have `ended` since the last sweep, and deletes checkpoints no longer needed.

        Checkpoints `in_use`, from which running trials started, stay. Those that running trials wrote are not touched.
        """
        self.points += [(r.trial, p) for r in ended for p in r.points if p.checkpoint and self._path(p).is_file()]
        # of equal points the front reports the earliest trial's, and that one has to stay
        self.points.sort(key=lambda point: point[0])
        keep = _select_checkpoints([point for _, point in self.points], self._estimates) | set(in_use)
        for _, point in self.points:
            if point.checkpoint not in keep:
                self._path(point).unlink(missing_ok=True)
        self.points = [(trial, point) for trial, point in self.points if point.checkpoint in keep]

    def refresh(self) -> None:
        """Forgets rounds whose checkpoints another process has deleted."""
        self.points = [(trial, point) for trial, point in self.points if self._path(point).is_file()]

    def _path(self, point: PointRecord) -> Path:
        return self._run_dir / str(point.checkpoint)


def _select_checkpoints(measured: Sequence[PointRecord], estimates: Estimates) -> set[str | None]:
    """The checkpoints to keep: those of the feasible front, and those for warm starts.

    The front is kept by estimates and as measured: the next trials may change the estimates.
    """
    limits, points = estimates.limits, [estimates.estimate(point) for point in measured]
    keep = _select_fronts(points, MIN_KEPT, limits.metric)
    for feasible in ([p for p in points if p.feasible], [p for p in measured if p.feasible]):
        chosen = pareto.front([limits.values(p.compression, p.judged, p.costs) for p in feasible])
        keep += [feasible[i] for i in chosen]
    return {point.checkpoint for point in keep}


def _select_fronts(points: Sequence[PointRecord], min_count: int, metric: Metric) -> list[PointRecord]:
    """The front, the front of the rest, and so on, until `min_count` points are selected."""
    selected: list[PointRecord] = []
    while len(selected) < min_count and (front := _front(points, metric)):
        removed = {id(point) for point in front}
        points = [point for point in points if id(point) not in removed]
        selected += front
    return selected


def _front(points: Sequence[PointRecord], metric: Metric) -> list[PointRecord]:
    return [points[i] for i in pareto.front([(p.compression, metric.cost(p.judged)) for p in points])]
