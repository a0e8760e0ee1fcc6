"""Runs trials side by side with Ray Tune, until the budget, the time, a failure or the user ends the search."""

import math
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import ray
from ray import tune

from tune_prune.distributed import loggers
from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.trainable import PruneTrainable
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo.budget import Budget, SearchEnd
from tune_prune.hpo.config import Config


class Interrupted(BaseException):
    """A signal came before anything was measured that is worth an end in order."""


class SignalHandler:
    """Handles SIGINT and SIGTERM while it is entered; a second one ends the process at once.

    A first one raises `Interrupted`, and once `is_running` is set it is noted, so that the search ends in order.
    `number` is the signal's, None before one came. In any thread but the main one, which alone may handle signals, it
    does nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.is_running = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {one: signal.signal(one, self._handle) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for one, handler in self._previous.items():
            signal.signal(one, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        if not self.is_running:
            raise Interrupted


class SearchStopper(tune.Stopper):
    """Stops trials that early stopping ends, and the whole search when it has to end: `end` says why.

    `failure` is the searcher's reason where a failure ends the search, else "". `has_enough` says whether more training
    is not worth it.
    """

    def __init__(
        self,
        budget: Budget,
        signals: SignalHandler,
        searcher: StudySearcher,
        has_enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._budget, self._signals, self._searcher, self._has_enough = budget, signals, searcher, has_enough
        self._time_is_up = self._is_enough = False
        self.failure = ""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its stoppers for snapshots, which are not used, and this one holds the screen."""
        return {}

    @property
    def end(self) -> SearchEnd:
        """Why the search ends; `SearchEnd.BUDGET` as long as nothing else ends it."""
        if self._signals.number is not None:
            return SearchEnd.INTERRUPTED
        if self._searcher.fatal_error is not None:
            return SearchEnd.ERROR
        if self.failure:
            return SearchEnd.FAILED
        if self._is_enough:
            return SearchEnd.ENOUGH
        return SearchEnd.TIME_BUDGET if self._time_is_up else SearchEnd.BUDGET

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop a trial, by Ray's id, after the round that it has just ended."""
        return not result["done"] and self._searcher.should_stop(trial_id)

    def stop_all(self) -> bool:
        """Whether to end the trials that run; Tune asks several times a second.

        They end with the search, and where one of them ran out of memory beside others.
        """
        if self.end is SearchEnd.BUDGET:
            self._time_is_up = self._budget.remaining <= 0
            self.failure = "" if self._time_is_up else self._searcher.failure_reason()
            self._is_enough = not self._time_is_up and self._has_enough()
        return self.end is not SearchEnd.BUDGET or self._searcher.out_of_memory


def run_trials(
    worker_data: WorkerData, searcher: StudySearcher, config: Config, concurrency: int, stop: SearchStopper
) -> None:
    """Runs the trials that remain. Returns when they have ended, or soon after `stop` ends them."""
    trials = searcher.trials
    processes = config.resources.workers_per_trial
    bundle = {"CPU": config.resources.cpus_per_trial, "GPU": config.resources.gpu_share}
    shared = {"worker_data": worker_data} if processes == 1 else {"stored": [ray.put(worker_data)]}
    trainable = tune.with_parameters(PruneTrainable, **shared)
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([bundle] * processes)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1 if trials.process or math.isinf(trials.remaining) else int(trials.remaining),
            max_concurrent_trials=concurrency,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(worker_data.run_dir / "ray" / (trials.process or "")),
            verbose=0,
            stop=stop,
            callbacks=loggers.make_callbacks(config.logger, worker_data.run_dir),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=2),
        ),
    )
    tuner.fit()
