"""Ray, started here or joined: how many trials fit, and where its talk goes."""

import io
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from tune_prune.common.errors import UserError
from tune_prune.distributed import cluster
from tune_prune.hpo.config import Config

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


@contextmanager
def ray_session(config: Config, shared_bytes: int, log: Path) -> Iterator[int]:
    """Ray, started here or joined at `--address`; yields how many trials it runs at a time. It talks to `log`."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    _log_to(log)
    with redirect_stdout(_ToLog()):  # to the last: it keeps some of what nodes say until it is shut down
        with _own_sigterm():
            if config.address:
                _join(config.address)
            else:
                _start(shared_bytes)
        try:
            yield _concurrency(config)
        finally:
            ray.shutdown()


def _start(shared_bytes: int) -> None:
    store = max(128 * 2**20, 2 * shared_bytes)
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    # one's own, also where a cluster that was not asked for runs on this machine or RAY_ADDRESS names one
    ray.init(address="local", object_store_memory=store, **quiet)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """SIGTERM stays what it is: Ray, when it starts, takes it for a crash of its own."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _join(address: str) -> None:
    cluster.check_answers(address)
    environment = cluster.runtime_environment(QUIET)
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, TimeoutError, RuntimeError, RayError) as error:
        # this machine is none of its nodes, or has another version of Ray or Python
        raise UserError(f"--address {address}: cannot join this Ray cluster ({error})") from error


def check_cluster(config: Config, run_dir: Path) -> None:
    """A `UserError` where the cluster at `--address` cannot be joined, or does not share the run's directory.

    To be called before anything is written there; a new directory is gone again afterwards.
    """
    new = not run_dir.exists()
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with ray_session(config, 0, run_dir / "ray.log"):
            cluster.check_shared_directory(run_dir)
    finally:
        if new:
            _silence()  # what Ray still says has no file to go to
            shutil.rmtree(run_dir)


class _ToLog(io.TextIOBase):
    """What Ray prints when a worker dies, whatever it was told: standard output may be meant for `--json`."""

    def write(self, text: str) -> int:
        if text.strip():
            logging.getLogger("ray").warning(text.rstrip())
        return len(text)


class _Log(logging.FileHandler):
    """The file that Ray talks to. A full disk ends the search by what it does to the records, in one line, not here."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Not a page on the screen where the file cannot be written; else what logging does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """What could not be written is lost."""
        with suppress(OSError):
            super().close()


def _silence() -> logging.Logger:
    """Ray's logger, which says nothing any more."""
    logger = logging.getLogger("ray")
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    return logger


def _log_to(path: Path) -> None:
    """Send what Ray logs to a file instead of the screen."""
    logger = _silence()
    logger.handlers = [_Log(path, delay=True)]


def has_exclusive_device(config: Config, concurrency: int) -> bool:
    """Whether no trial shares the memory of its device with another."""
    return concurrency == 1 or config.gpu_share >= 1


def reduce_concurrency(config: Config, concurrency: int) -> tuple[Config, int]:
    """Half as many trials on a device as there are now, or at a time where they share none; Ray is there."""
    if not config.gpu_share:
        return config, max(1, concurrency // 2)
    config = replace(config, gpus_per_trial=min(1.0, 2 * config.gpu_share))
    return config, min(concurrency, _concurrency(config))


def _concurrency(config: Config) -> int:
    there: dict[str, float] = ray.cluster_resources()
    if config.address and config.max_concurrent:
        return config.max_concurrent  # a cluster may grow to what is asked for; until then, trials wait
    fits = int(there.get("CPU", 1) // config.cpus_per_trial)
    if config.gpu_share:
        fits = min(fits, int(there.get("GPU", 0) / config.gpu_share))
    if fits < 1:
        gpus = f" and {config.gpu_share:g} GPUs" if config.gpu_share else ""
        have = f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        raise UserError(f"a trial asks for {config.cpus_per_trial:g} CPUs{gpus} and there are {have}; ask for less")
    return min(fits, config.max_concurrent or fits)
