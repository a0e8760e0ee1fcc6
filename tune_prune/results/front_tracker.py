"""Follows the front of a search from trial to trial."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tune_prune.results import pareto
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import TrialRecord


@dataclass(frozen=True)
class Moment:
    """A search when a trial has ended: the seconds of all trials so far, the hypervolume, and the front's end.

    `log_factor` is log10(factor) of the most compressed feasible point, 0 where there is none.
    """

    seconds: float = 0.0
    hypervolume: float = 0.0
    log_factor: float = 0.0


class FrontTracker:
    """The front of the trials that have ended. Adding a trial costs the same at the end of a search as at its start.

    `front` holds (compression, metric as a cost), ascending; `history` holds a moment for each trial.
    """

    def __init__(self, limits: Constraints) -> None:
        self._limits = limits
        self._states = Counter[str]()
        self.front: list[pareto.Point] = []
        self.history: list[Moment] = []

    @property
    def ended(self) -> int:
        """The number of trials that have ended."""
        return len(self.history)

    @property
    def now(self) -> Moment:
        """The last moment."""
        return self.history[-1] if self.history else Moment()

    @property
    def best(self) -> pareto.Point | None:
        """The most compressed feasible point."""
        return self.front[-1] if self.front else None

    def count(self, state: str) -> int:
        """Counts the trials that ended in this state."""
        return self._states[state]

    def judge_anew(self, records: Iterable[TrialRecord]) -> None:
        """Finds the front of the trials that have ended anew, after their points got other estimates."""
        points = [point for record in records for point in self._list_feasible(record)]
        self.front = [points[i] for i in pareto.front(points)]

    def _list_feasible(self, record: TrialRecord) -> list[pareto.Point]:
        return [(p.compression, self._limits.metric.cost(p.judged)) for p in record.points if p.feasible]

    def add(self, record: TrialRecord) -> None:
        """Adds a trial that has ended."""
        self._states[record.state] += 1
        points = self.front + self._list_feasible(record)
        self.front = [points[i] for i in pareto.front(points)]
        hypervolume = self._limits.hypervolume(self.front)
        log_factor = pareto.log_factor(self.front[-1][0]) if self.front else 0.0
        self.history.append(Moment(self.now.seconds + record.seconds, hypervolume, log_factor))
