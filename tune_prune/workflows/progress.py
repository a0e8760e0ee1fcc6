"""Follows a search: keeps the front of the ended trials up to date, and shows status and time left on the console.

It also keeps the end of the search affordable: the time budget reserves the seconds for the test images and the files.
"""

import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence

from tune_prune.hpo.budget import Budget
from tune_prune.hpo.trials import Trials
from tune_prune.pruning import masks
from tune_prune.results import pareto
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.workflows.console import SearchConsole, Status


class FrontTracker:
    """The front of the trials that have ended. Adding a trial costs the same at the end of a search as at its start.

    `front` holds (compression, metric as a cost), ascending; `history` holds the hypervolume after each trial.
    """

    def __init__(self, limits: Constraints) -> None:
        self._limits = limits
        self._states = Counter[str]()
        self.front: list[pareto.Point] = []
        self.hypervolume = 0.0
        self.history: list[float] = []

    @property
    def ended(self) -> int:
        """The number of trials that have ended."""
        return self._states.total()

    @property
    def best(self) -> pareto.Point | None:
        """The most compressed feasible point."""
        return self.front[-1] if self.front else None

    def count(self, state: str) -> int:
        """Counts the trials that ended in this state."""
        return self._states[state]

    def add(self, record: TrialRecord) -> None:
        """Adds a trial that has ended."""
        self._states[record.state] += 1
        points = self.front + [
            (point.compression, self._limits.metric.cost(point.val_metric)) for point in record.points if point.feasible
        ]
        if len(points) > len(self.front):
            self.front = [points[i] for i in pareto.front(points)]
            self.hypervolume = self._limits.hypervolume(self.front)
        self.history.append(self.hypervolume)


FILES = 3.0
"""Seconds, about, from the last trial to the last file, without reading the test images."""


class Progress:
    """Shows how far a search is, and reserves the time that its end will take.

    `test` is the time in seconds to test one model; at the end each member of the front takes that long.
    """

    def __init__(self, info: RunInfo, console: SearchConsole, budget: Budget, test: float) -> None:
        self._console, self._budget = console, budget
        self._test = test
        self._metric = info.metric
        self._first: tuple[float, int] | None = None
        self._tracker = FrontTracker(info.limits)

    def update(self, trials: Trials) -> None:
        """Updates front, reserve and console; called whenever a trial starts, ends a round, or ends."""
        tracker, now = self._tracker, time.monotonic()
        new = [*itertools.islice(trials.records.values(), tracker.ended, None)]
        if self._first is None:
            self._first = now, len(new)
        if new:
            self._add(new)
        factor = masks.factor(tracker.best[0]) if tracker.best else None
        self._console.show_status(
            Status(
                budget=self._budget.trials,
                share=self._used_share(tracker.ended),
                done=tracker.ended,
                running=len(trials.running),
                stopped=tracker.count("stopped"),
                failed=tracker.count("failed"),
                best_factor=factor,
                best=self._metric.format(self._metric.value(tracker.best[1])) if tracker.best else None,
                hypervolume=tracker.hypervolume,
                history=tracker.history,
                seconds=self._budget.elapsed,
                seconds_left=self._seconds_left(now, tracker.ended),
            )
        )

    def _add(self, new: Sequence[TrialRecord]) -> None:
        """Adds the trials that have ended since the last update."""
        for record in new:
            self._tracker.add(record)
        members = len(self._tracker.front) + 1  # and the dense model
        self._budget.reserve = FILES + members * self._test

    def _seconds_left(self, now: float, done: int) -> float | None:
        """Estimates the seconds left from the trials that this process has run; at most those of the time budget."""
        assert self._first is not None
        since, before = self._first
        left, missing = self._budget.remaining, self._budget.trials_left(done)
        if done > before and math.isfinite(missing):
            left = min(left, (now - since) / (done - before) * missing)
        return left if math.isfinite(left) else None

    def _used_share(self, done: int) -> float:
        """The used part of the budget: of its trials or of its time, whichever is larger."""
        trials, seconds = self._budget.trials, self._budget.seconds
        return min(1.0, max(done / trials if trials else 0.0, self._budget.elapsed / seconds if seconds else 0.0))
