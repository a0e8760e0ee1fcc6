"""How far a search is: what the searcher knows, for the screen; and weights that nothing needs any more go."""

import time
from pathlib import Path

from tune_prune.results import RunInfo
from tune_prune.rounds import sweep
from tune_prune.screen import Screen, Status
from tune_prune.searcher import StudySearcher
from tune_prune.summary import hypervolume_of


class Progress:
    """Turns what the searcher knows into what the screen shows, and drops weights that nothing needs any more."""

    def __init__(self, run_dir: Path, info: RunInfo, screen: Screen, began: float, time_budget: float | None) -> None:
        self._run_dir, self._info, self._screen = run_dir, info, screen
        self._began, self._time_budget = began, time_budget
        self._first: tuple[float, int] | None = None
        self._swept = 0

    def update(self, searcher: StudySearcher) -> None:
        """Called whenever a trial starts, ends a round, or ends."""
        found = list(searcher.records.values())
        now = time.monotonic()
        if self._first is None:
            self._first = now, len(found)
        if len(found) > self._swept:
            self._swept = len(found)
            sweep(self._run_dir, found, set(searcher.finishing.values()), searcher.in_use)
        feasible = [point for record in found for point in record.points if point.feasible]
        best = max(feasible, key=lambda point: (point.compression, -point.val_error), default=None)
        states = [record.state for record in found]
        self._screen.update(
            Status(
                budget=self._info.budget,
                done=len(found),
                running=searcher.running,
                stopped=states.count("stopped"),
                failed=states.count("failed"),
                best_factor=best.factor if best else None,
                best_error=best.val_error if best else None,
                hypervolume=hypervolume_of(found, self._info),
                seconds=now - self._began,
                seconds_left=self._left(now, len(found)),
            )
        )

    def _left(self, now: float, done: int) -> float | None:
        """Seconds left, at the pace since the first trial of this process began, within the time budget."""
        assert self._first is not None
        since, before = self._first
        budget = None if self._time_budget is None else self._began + self._time_budget - now
        if done == before:
            return budget
        left = (now - since) / (done - before) * (self._info.budget - done)
        return left if budget is None else min(left, budget)
