"""Follows a search: keeps the front of the ended trials up to date, and shows status and time left on the console.

It also keeps the end of the search affordable: the time budget reserves the seconds for the test images and the files.
"""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tune_prune.hpo.budget import Budget
from tune_prune.hpo.groups import GroupedRatio
from tune_prune.hpo.parameters import Choice, Parameter, Range
from tune_prune.hpo.trials import TrialConfig, Trials
from tune_prune.pruning import masks
from tune_prune.results import records
from tune_prune.results.forecast import Forecast, make_forecast
from tune_prune.results.front_tracker import FrontTracker
from tune_prune.results.records import TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.status import RunningTrial, Status, format_clock, select_params

INITIAL, SEARCH, REFINEMENT, GRADUAL = "initial trials", "search", "refinement", "gradual pruning"
"""The phases of a search that have trials."""

FILES = 3.0
"""Seconds, about, from the last trial to the last file, without reading the test images."""


class Progress:
    """Shows how far a search is, and reserves the time that its end will take.

    `test` is the time in seconds to test one model; at the end each member of the front takes that long. `stop_when` is
    the gain of hypervolume, as a share of it, below which as much training again is not worth it. Running trials are
    shown with their points as `run_dir` has them, and with those of their `parameters` that are not fixed.
    """

    def __init__(
        self,
        info: RunInfo,
        console: SearchConsole,
        budget: Budget,
        test: float,
        stop_when: float | None = None,
        *,
        run_dir: Path | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._varying = {
            name for name, domain in (parameters or {}).items() if isinstance(domain, Range | Choice | GroupedRatio)
        }
        self._best_factor = 0.0
        self._configs: dict[int, TrialConfig] = {}
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
            self._best_factor = max((p.factor for one in new for p in one.points if p.feasible), default=0.0)
        if new:
            self._add(new)
        self._take_back_best()
        factor = masks.factor(tracker.best[0]) if tracker.best else None
        running = [self._describe_running(trials, number) for number in sorted(trials.running)]
        self._console.show_status(
            Status(
                budget=self._budget.trials,
                share=self._used_share(tracker.ended),
                done=tracker.ended,
                running=running,
                stopped=tracker.count("stopped"),
                failed=tracker.count("failed"),
                best_factor=factor,
                best=self._metric.format(self._metric.value(tracker.best[1])) if tracker.best else None,
                hypervolume=tracker.now.hypervolume,
                history=[moment.hypervolume for moment in tracker.history],
                forecast=self._forecast.describe() if self._forecast else "",
                seconds=self._budget.elapsed,
                seconds_left=self._seconds_left(now, tracker.ended),
                phase=self._find_phase(trials),
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
            self._configs.pop(record.trial, None)
            self._say_best(record)
        members = len(self._tracker.front) + 1  # and the dense model
        self._forecast = make_forecast(self._tracker.history)
        self._budget.reserve = FILES + members * self._test

    def _say_best(self, record: TrialRecord) -> None:
        """Says when a trial has made the most compressed feasible point so far."""
        points = [point for point in record.points if point.feasible and point.factor > self._best_factor]
        if not points:
            return
        best = max(points, key=lambda point: point.factor)
        self._best_factor = best.factor
        where = f"trial {record.trial}, round {best.round}, {format_clock(self._budget.elapsed)}"
        self._console.say(f"new best: {self._describe(best.factor, best.val_metric)} ({where})")

    def _take_back_best(self) -> None:
        """Says what is best now where the best so far is outside the limit by its new estimate."""
        best = self._tracker.best
        factor = masks.factor(best[0]) if best else 0.0
        if factor < self._best_factor:
            now = f"best now: {self._describe(factor, self._metric.value(best[1]))}" if best else "none is left"
            self._console.say(f"by its estimate, {self._best_factor:.1f}x is outside the limit; {now}")
            self._best_factor = factor

    def _describe(self, factor: float, value: float) -> str:
        """A point in words: its factor, and its metric with the unit."""
        return f"{factor:.1f}x at {self._metric.format(value)}"

    def _describe_running(self, trials: Trials, number: int) -> RunningTrial:
        """A running trial with its parameters, and with the last point that its worker has written."""
        if number not in self._configs:
            self._configs[number] = trials.worker_config(number)
        config, points = self._configs[number], []
        if self._run_dir is not None and (path := records.record_path(self._run_dir, number)).is_file():
            points = records.read(path).points
        latest = self._describe(points[-1].factor, points[-1].val_metric) if points else ""
        rounds = config.params.to_plan().rounds
        params = select_params(config.params, self._varying)
        done = points[-1].round if points else 0
        return RunningTrial(number, min(done + 1, rounds), rounds, latest, params, config.refines, config.gradual)

    def _find_phase(self, trials: Trials) -> str:
        """What the trial that was started last is part of."""
        newest = max(trials.running, default=None)
        if newest is None:
            return SEARCH if trials.started else INITIAL
        if self._configs[newest].refines is not None:
            return REFINEMENT
        if self._configs[newest].gradual:
            return GRADUAL
        return INITIAL if self._configs[newest].is_initial else SEARCH

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
