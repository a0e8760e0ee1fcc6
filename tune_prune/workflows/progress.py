"""Follows a search: keeps the front of the ended trials up to date, and shows status and time left on the console.

It also keeps the end of the search affordable: the time budget reserves the seconds for the test images and the files.
"""

import itertools
import math
import time
from collections.abc import Sequence

from tune_prune.hpo.budget import Budget
from tune_prune.hpo.trials import Trials
from tune_prune.pruning import masks
from tune_prune.results.forecast import Forecast, make_forecast
from tune_prune.results.front_tracker import FrontTracker
from tune_prune.results.records import TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.workflows.console import SearchConsole, Status

FILES = 3.0
"""Seconds, about, from the last trial to the last file, without reading the test images."""


class Progress:
    """Shows how far a search is, and reserves the time that its end will take.

    `test` is the time in seconds to test one model; at the end each member of the front takes that long. `stop_when` is
    the gain of hypervolume, as a share of it, below which as much training again is not worth it.
    """

    def __init__(
        self, info: RunInfo, console: SearchConsole, budget: Budget, test: float, stop_when: float | None = None
    ) -> None:
        self._console, self._budget = console, budget
        self._test, self._stop_when = test, stop_when
        self._forecast: Forecast | None = None
        self._said_enough = False
        self._metric = info.metric
        self._fits = 0
        self._first: tuple[float, int] | None = None
        self._tracker = FrontTracker(info.limits)

    def update(self, trials: Trials) -> None:
        """Updates front, reserve and console; called whenever a trial starts, ends a round, or ends."""
        tracker, now = self._tracker, time.monotonic()
        estimates = trials.estimates
        new = [*itertools.islice(estimates.records.values(), tracker.ended, None)]
        if self._fits != estimates.fits:
            self._fits = estimates.fits
            tracker.judge_anew(estimates.records.values())
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
                hypervolume=tracker.now.hypervolume,
                history=[moment.hypervolume for moment in tracker.history],
                forecast=self._forecast.describe() if self._forecast else "",
                seconds=self._budget.elapsed,
                seconds_left=self._seconds_left(now, tracker.ended),
            )
        )

    def has_enough(self) -> bool:
        """Whether as much training again is expected to gain less than `stop_when`; says so when it begins to be."""
        if self._stop_when is None or self._forecast is None:
            return False
        enough = self._forecast.gain.expected < self._stop_when
        if enough and not self._said_enough:
            gain = f"{100 * self._stop_when:g} % more hypervolume"
            self._console.say(f"--stop-when: less than {gain} is expected; no further trials")
        self._said_enough = enough
        return enough

    def _add(self, new: Sequence[TrialRecord]) -> None:
        """Adds the trials that have ended since the last update."""
        for record in new:
            self._tracker.add(record)
        members = len(self._tracker.front) + 1  # and the dense model
        self._forecast = make_forecast(self._tracker.history)
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
