"""Starts Ray or joins a cluster, counts how many trials fit, and sends what Ray logs to a file."""

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
from ray.job_config import JobConfig

from tune_prune.common.errors import UserError
from tune_prune.distributed import authentication, cluster
from tune_prune.distributed.shared_splits import send_places_of_mapped_arrays
from tune_prune.training.resources import Resources

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a run is read from its records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are handled here
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # a run resumes from its study
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
"""Turns off output and files of Ray that nothing here reads; a variable that is set already keeps its value."""


@contextmanager
def ray_session(resources: Resources, shared_bytes: int, log: Path) -> Iterator[int]:
    """Starts Ray, or joins it at `--address`, until the block ends; yields how many trials run at a time.

    `shared_bytes` is the size of the data that all workers read. Ray logs to the file `log`.
    """
    _log_to(log)
    # to the end: Ray prints some of what nodes print only when it is shut down
    with _quiet(), redirect_stdout(_ToLog()):
        with _keep_sigterm():
            if resources.address:
                _join(resources.address)
            else:
                _start(shared_bytes)
        send_places_of_mapped_arrays()
        try:
            yield _count_concurrent(resources)
        finally:
            ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Sets the variables of `QUIET` in the block, so that a later use of Ray in this process is not changed."""
    added = [key for key in QUIET if key not in os.environ]
    os.environ.update({key: QUIET[key] for key in added})
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


class _Job(JobConfig):
    """The job of a search. Ray would put the working directory and the script's folder first on its workers' path."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # where it has, Ray adds neither


def _start(shared_bytes: int) -> None:
    authentication.check_environment()
    authentication.ensure_token()
    store = max(128 * 2**20, 2 * shared_bytes)
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    # workers look for modules where this process does, in the same order: Ray puts each of these before the last
    job = _Job(_py_driver_sys_path=[os.path.abspath(entry) for entry in reversed(sys.path)])
    # a new one, even where another cluster runs on this machine or RAY_ADDRESS names one
    with authentication.on_loopback():
        ray.init(address="local", object_store_memory=store, job_config=job, **quiet)


@contextmanager
def _keep_sigterm() -> Iterator[None]:
    """Puts the handler of SIGTERM back, which Ray replaces when it starts."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _join(address: str) -> None:
    cluster.check_answers(address)
    if os.environ.get(authentication.MODE, "").lower() != "token":
        authentication.warn_unprotected(address)  # it has answered without one
    environment = cluster.runtime_environment(QUIET)
    try:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address=address, runtime_env=environment, job_config=_Job(), **quiet)
    except (ConnectionError, TimeoutError, RuntimeError, RayError) as error:
        # this machine is not a node of the cluster, or has another version of Ray or Python
        raise UserError(f"--address {address}: cannot join this Ray cluster ({error})") from error


def check_cluster(resources: Resources, run_dir: Path) -> None:
    """Raises a `UserError` where the cluster at `--address` cannot be joined, or does not share the run's directory.

    To be called before anything is written there; a new directory is removed again.
    """
    new = not run_dir.exists()
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with ray_session(resources, 0, run_dir / "ray.log"):
            cluster.check_shared_directory(run_dir)
    finally:
        if new:
            _silence()  # what Ray still logs has no file
            shutil.rmtree(run_dir)


class _ToLog(io.TextIOBase):
    """Standard output while Ray runs: logs what Ray prints when a worker dies, since `--json` may use the output."""

    def write(self, text: str) -> int:
        if text.strip():
            logging.getLogger("ray").error(text.rstrip())  # of less, Ray's logger takes none once it has started
        return len(text)


class _Log(logging.FileHandler):
    """The file that Ray logs to. On a full disk the search ends at its records, with one line, and not here."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignores that the file cannot be written; logging would print a page on the screen."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Closes the file; what could not be written is lost."""
        with suppress(OSError):
            super().close()


def _silence() -> logging.Logger:
    """Closes the files of Ray's logger and removes them; returns the logger."""
    logger = logging.getLogger("ray")
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    return logger


def _log_to(path: Path) -> None:
    """Sends what Ray logs to a file instead of the screen."""
    logger = _silence()
    logger.handlers = [_Log(path, delay=True)]


def has_exclusive_device(resources: Resources, concurrency: int) -> bool:
    """Whether no trial shares the memory of its device with another."""
    return concurrency == 1 or resources.gpu_share >= 1


def reduce_concurrency(resources: Resources, concurrency: int) -> tuple[Resources, int]:
    """Halves the trials on a device, or the trials at a time where they share no device. Ray must be running."""
    if not resources.gpu_share:
        return resources, max(1, concurrency // 2)
    resources = replace(resources, gpus_per_trial=min(1.0, 2 * resources.gpu_share))
    return resources, min(concurrency, _count_concurrent(resources))


def _count_concurrent(resources: Resources) -> int:
    """Counts how many trials run at a time on what Ray has; a `UserError` where not even one fits."""
    has: dict[str, float] = ray.cluster_resources()
    if resources.address and resources.max_concurrent:
        return resources.max_concurrent  # a cluster may grow to what is asked for; until then, trials wait
    fits = int(has.get("CPU", 1) // resources.cpus_per_trial)
    if resources.gpu_share:
        fits = min(fits, int(has.get("GPU", 0) / resources.gpu_share))
    fits //= resources.workers_per_trial
    if fits < 1:
        each = f" for each of its {resources.workers_per_trial} processes" if resources.workers_per_trial > 1 else ""
        gpus = f" and {resources.gpu_share:g} GPUs" if resources.gpu_share else ""
        have = f"{has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
        asked = f"{resources.cpus_per_trial:g} CPUs{gpus}{each}"
        raise UserError(f"a trial asks for {asked} and there are {have}; ask for less")
    return min(fits, resources.max_concurrent or fits)
