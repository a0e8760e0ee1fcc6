"""The weights of rounds on disk: those that may still be wanted stay, the others go."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tune_prune.results import pareto
from tune_prune.results.constraints import NO_CONSTRAINTS, Constraints
from tune_prune.results.records import PointRecord, TrialRecord

MIN_KEPT = 48
"""How many rounds are kept, in fronts from the first on, for later trials to begin at; the last front is kept whole."""


class CheckpointStore:
    """The rounds of ended trials whose weights are on disk: `points` with their trials, in the order of trials.

    What is deleted is never looked at again: a sweep costs no more after thousands of trials than after a hundred.
    """

    def __init__(self, run_dir: Path, limits: Constraints = NO_CONSTRAINTS) -> None:
        self._run_dir, self._limits = run_dir, limits
        self.points: list[tuple[int, PointRecord]] = []

    def sweep(self, ended: Iterable[TrialRecord], in_use: Collection[str]) -> None:
        """Take up trials that have `ended` since the last time, and delete the weights that nothing needs any more.

        Those `in_use`, at which running trials have begun, stay; those of running trials are not known here.
        """
        self.points += [(r.trial, p) for r in ended for p in r.points if p.checkpoint and self._path(p).is_file()]
        # of equal points the same one must stay that is reported: the earliest trial's
        self.points.sort(key=lambda point: point[0])
        keep = _worth_keeping([point for _, point in self.points], self._limits) | set(in_use)
        for _, point in self.points:
            if point.checkpoint not in keep:
                self._path(point).unlink(missing_ok=True)
        self.points = [(trial, point) for trial, point in self.points if point.checkpoint in keep]

    def refresh(self) -> None:
        """Forget what another process has deleted."""
        self.points = [(trial, point) for trial, point in self.points if self._path(point).is_file()]

    def _path(self, point: PointRecord) -> Path:
        return self._run_dir / str(point.checkpoint)


def _worth_keeping(points: Sequence[PointRecord], limits: Constraints) -> set[str | None]:
    """The checkpoints of the feasible front, and of what is worth beginning at."""
    feasible = [point for point in points if point.feasible]
    every = [limits.values(point.compression, point.val_error, point.costs) for point in feasible]
    keep = [feasible[i] for i in pareto.front(every)] + _fronts(points, MIN_KEPT)
    return {point.checkpoint for point in keep}


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
