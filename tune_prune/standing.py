"""What the trials that have ended have come to: their front, and how they ended, kept up to date trial by trial."""

from collections import Counter

from tune_prune.results import pareto
from tune_prune.results.records import TrialRecord


class Standing:
    """Takes up each trial once: a long search costs as much a trial at its end as at its beginning.

    `limit` is the highest feasible validation error in percent; `front` holds (compression, error), ascending; `course`
    the hypervolume after each trial.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._states = Counter[str]()
        self.front: list[pareto.Point] = []
        self.hypervolume = 0.0
        self.course: list[float] = []

    @property
    def ended(self) -> int:
        """Trials so far."""
        return self._states.total()

    @property
    def best(self) -> pareto.Point | None:
        """The most compressed feasible point."""
        return self.front[-1] if self.front else None

    def count(self, state: str) -> int:
        """Trials that ended like that."""
        return self._states[state]

    def add(self, record: TrialRecord) -> None:
        """Take up a trial that has ended."""
        self._states[record.state] += 1
        points = self.front + [(point.compression, point.val_error) for point in record.points if point.feasible]
        if len(points) > len(self.front):
            self.front = [points[i] for i in pareto.front(points)]
            self.hypervolume = pareto.hypervolume(self.front, self._limit) if self._limit > 0 else 0.0
        self.course.append(self.hypervolume)
