"""Ray Tune at work: trials side by side until the budget, the time or the user ends them."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray import tune

from tune_prune.distributed import loggers
from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.trainable import PruneTrainable
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.config import Config


def _never(trial_id: str) -> bool:
    return False


class SearchStopper(tune.Stopper):
    """Ends a search: when its time is up, or on SIGINT or SIGTERM. `reason` is empty until then.

    `judge` says of a trial, by Ray's name for it, whether to stop it after the round that it has just ended; `fault`
    says why to end the whole search, or nothing; `crowded` whether to end the trials that run, and to go on with fewer
    of them at a time.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.reason = ""
        self.judge: Callable[[str], bool] = _never
        self.fault: Callable[[], str] = str
        self.out_of_memory: Callable[[], bool] = bool
        self.signal: int | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        return not result["done"] and self.judge(trial_id)

    def stop_all(self) -> bool:
        """Whether to end what runs now; Tune asks several times a second."""
        if not self.reason and self._budget.remaining <= 0:
            self.reason = "time budget"
        self.reason = self.reason or self.fault()
        return bool(self.reason) or self.out_of_memory()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Stop in order on a first SIGINT or SIGTERM; a second one ends the process at once."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                os._exit(128 + number)
            self.signal, self.reason = number, "interrupted"

        if threading.current_thread() is not threading.main_thread():
            yield  # signals can be handled in the main thread alone; in any other they are not ours
            return
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_trials(
    worker_data: WorkerData, searcher: StudySearcher, config: Config, concurrency: int, stop: SearchStopper
) -> None:
    """Run the searcher's missing trials. Returns when they have ended, or soon after `stop` says so."""
    trials = searcher.trials
    resources = {"cpu": config.cpus_per_trial, "gpu": config.gpu_share}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(PruneTrainable, worker_data=worker_data), resources),
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
