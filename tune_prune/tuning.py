"""Ray Tune at work: trials side by side until the budget, the time or the user ends them."""

import io
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune

from tune_prune.budget import Budget
from tune_prune.config import Config
from tune_prune.errors import UserError
from tune_prune.searcher import StudySearcher
from tune_prune.trainable import PruneTrainable, Shared

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the records are what a run is read from
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are handled here
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the study is what a run resumes from
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
"""Ray's own talk and files that nothing here reads; a value that is in the environment already is left alone."""


def _never(trial_id: str) -> bool:
    return False


class Stop(tune.Stopper):
    """Ends a search: when its time is up, or on SIGINT or SIGTERM. `reason` is empty until then.

    `judge` says of a trial, by Ray's name for it, whether to stop it after the round that it has just ended.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.reason = ""
        self.judge: Callable[[str], bool] = _never
        self.signal: int | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        return not result["done"] and self.judge(trial_id)

    def stop_all(self) -> bool:
        """Whether to end now; Tune asks several times a second."""
        if not self.reason and self._budget.left <= 0:
            self.reason = "time budget"
        return bool(self.reason)

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


@contextmanager
def started_ray(config: Config, shared_bytes: int, log: Path) -> Iterator[int]:
    """Ray, started here or joined at `--address`; yields how many trials it runs at a time. It talks to `log`."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    _log_to(log)
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    if config.address:
        _answers(config.address)
        quiet = {"address": config.address, "log_to_driver": False, "logging_level": "ERROR"}
    else:
        quiet["object_store_memory"] = max(128 * 2**20, 2 * shared_bytes)
    try:
        ray.init(**quiet)
    except (ConnectionError, TimeoutError) as error:
        raise UserError(f"--address {config.address}: no Ray cluster answers there") from error
    try:
        with redirect_stdout(_ToLog()):
            yield _concurrency(config, ray.cluster_resources())
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """A `UserError` where nothing listens at HOST:PORT; Ray itself would try for ten minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return  # "auto", which Ray finds out at once
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers there ({error})") from error


class _ToLog(io.TextIOBase):
    """What Ray prints when a worker dies, whatever it was told: standard output may be meant for `--json`."""

    def write(self, text: str) -> int:
        if text.strip():
            logging.getLogger("ray").warning(text.rstrip())
        return len(text)


def _log_to(path: Path) -> None:
    """Send what Ray logs to a file instead of the screen."""
    logger = logging.getLogger("ray")
    logger.handlers = [logging.FileHandler(path, delay=True)]
    logger.propagate = False


def _concurrency(config: Config, there: dict[str, float]) -> int:
    fits = int(there.get("CPU", 1) // config.cpus_per_trial)
    if config.gpu_share:
        fits = min(fits, int(there.get("GPU", 0) / config.gpu_share))
    if fits < 1:
        gpus = f" and {config.gpu_share:g} GPUs" if config.gpu_share else ""
        have = f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        raise UserError(f"a trial asks for {config.cpus_per_trial:g} CPUs{gpus} and there are {have}; ask for less")
    return min(fits, config.max_concurrent or fits)


def run_trials(shared: Shared, searcher: StudySearcher, config: Config, concurrency: int, stop: Stop) -> None:
    """Run the searcher's missing trials. Returns when they have ended, or soon after `stop` says so."""
    scratch: Path = shared.run_dir / "ray"
    resources = {"cpu": config.cpus_per_trial, "gpu": config.gpu_share}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(PruneTrainable, shared=shared), resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1 if math.isinf(searcher.missing) else int(searcher.missing),
            max_concurrent_trials=concurrency,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            verbose=0,
            stop=stop,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=2),
        ),
    )
    tuner.fit()
