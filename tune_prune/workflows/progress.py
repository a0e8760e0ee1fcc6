"""What the trials that have ended have come to: their front, and how they ended, kept up to date trial by trial.

How far a search is: what is known of its trials, for the screen.
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
from tune_prune.results.records import TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.workflows.console import SearchConsole, Status


class FrontTracker:
    """Takes up each trial once: a long search costs as much a trial at its end as at its beginning.

    `limit` is the highest feasible validation error in percent; `front` holds (compression, error), ascending; `course`
    the hypervolume after each trial.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._states = Counter[str]()
        self.front: list[pareto.Point] = []
        self.hypervolume = 0.0
        self.history: list[float] = []

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
        self.history.append(self.hypervolume)


FILES = 3.0
"""Seconds, about, from the last trial to the last file, without the test images."""


class Progress:
    """Turns what is known of the trials into what the screen shows, and into the time that its end will take.

    `evaluation` are the seconds of one reading of the test images: what each member of the front will take at the end.
    """

    def __init__(self, info: RunInfo, console: SearchConsole, budget: Budget, evaluation: float) -> None:
        self._screen, self._budget = console, budget
        self._evaluation = evaluation
        self._first: tuple[float, int] | None = None
        self._tracker = FrontTracker(info.limit)

    def update(self, trials: Trials) -> None:
        """Called whenever a trial starts, ends a round, or ends."""
        tracker, now = self._tracker, time.monotonic()
        new = [*itertools.islice(trials.records.values(), tracker.ended, None)]
        if self._first is None:
            self._first = now, len(new)
        if new:
            self._take_up(new)
        factor = masks.factor(tracker.best[0]) if tracker.best else None
        self._screen.update(
            Status(
                budget=self._budget.trials,
                share=self._share(tracker.ended),
                done=tracker.ended,
                running=len(trials.running),
                stopped=tracker.count("stopped"),
                failed=tracker.count("failed"),
                best_factor=factor,
                best_error=tracker.best[1] if tracker.best else None,
                hypervolume=tracker.hypervolume,
                history=tracker.history,
                seconds=self._budget.elapsed,
                seconds_left=self._left(now, tracker.ended),
            )
        )

    def _take_up(self, new: Sequence[TrialRecord]) -> None:
        """Trials have ended since the last time."""
        for record in new:
            self._tracker.add(record)
        members = len(self._tracker.front) + 1  # and the dense model
        self._budget.reserve = FILES + members * self._evaluation

    def _left(self, now: float, done: int) -> float | None:
        """Seconds left, at the pace since the first trial of this process began, within the time budget."""
        assert self._first is not None
        since, before = self._first
        left, missing = self._budget.remaining, self._budget.trials_left(done)
        if done > before and math.isfinite(missing):
            left = min(left, (now - since) / (done - before) * missing)
        return left if math.isfinite(left) else None

    def _share(self, done: int) -> float:
        """How much of the budget is gone: of its trials or of its time, whichever is the more."""
        trials, seconds = self._budget.trials, self._budget.seconds
        return min(1.0, max(done / trials if trials else 0.0, self._budget.elapsed / seconds if seconds else 0.0))
