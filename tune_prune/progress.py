"""How far a search is: what the searcher knows, for the screen; and weights that nothing needs any more go."""

import math
import time
from pathlib import Path

from tune_prune.budget import Budget
from tune_prune.front import front_of
from tune_prune.results import RunInfo
from tune_prune.rounds import sweep
from tune_prune.screen import Screen, Status
from tune_prune.searcher import StudySearcher
from tune_prune.summary import hypervolume_of

FILES = 3.0
"""Seconds, about, from the last trial to the last file, without the test images."""


class Progress:
    """Turns what the searcher knows into what the screen shows, and drops weights that nothing needs any more.

    `evaluation` are the seconds of one reading of the test images: what each member of the front will take at the end.
    """

    def __init__(self, run_dir: Path, info: RunInfo, screen: Screen, budget: Budget, evaluation: float) -> None:
        self._run_dir, self._info, self._screen, self._budget = run_dir, info, screen, budget
        self._evaluation = evaluation
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
            sweep(self._run_dir, found, searcher.in_use)
        members = len(front_of(found)) + 1  # and the dense model
        self._budget.reserve = FILES + members * self._evaluation
        feasible = [point for record in found for point in record.points if point.feasible]
        best = max(feasible, key=lambda point: (point.compression, -point.val_error), default=None)
        states = [record.state for record in found]
        self._screen.update(
            Status(
                budget=self._budget.trials,
                share=self._share(len(found)),
                done=len(found),
                running=searcher.running,
                stopped=states.count("stopped"),
                failed=states.count("failed"),
                best_factor=best.factor if best else None,
                best_error=best.val_error if best else None,
                hypervolume=hypervolume_of(found, self._info),
                seconds=self._budget.gone,
                seconds_left=self._left(now, len(found)),
            )
        )

    def _left(self, now: float, done: int) -> float | None:
        """Seconds left, at the pace since the first trial of this process began, within the time budget."""
        assert self._first is not None
        since, before = self._first
        left, missing = self._budget.left, self._budget.missing(done)
        if done > before and math.isfinite(missing):
            left = min(left, (now - since) / (done - before) * missing)
        return left if math.isfinite(left) else None

    def _share(self, done: int) -> float:
        """How much of the budget is gone: of its trials or of its time, whichever is the more."""
        trials, seconds = self._budget.trials, self._budget.seconds
        return min(1.0, max(done / trials if trials else 0.0, self._budget.gone / seconds if seconds else 0.0))
