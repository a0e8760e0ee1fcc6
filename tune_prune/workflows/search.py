"""A search from beginning to end: prepare, let Ray and Optuna work, and write what they found."""

import math
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from tune_prune.common.errors import HeldError, UserError
from tune_prune.distributed import loggers
from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.session import check_cluster, has_exclusive_device, ray_session, reduce_concurrency
from tune_prune.distributed.tuner import SearchStopper, run_trials
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo import storage
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.config import Config, save_run
from tune_prune.hpo.refinement import standard_error
from tune_prune.hpo.run_lock import RunLock, join_run, sole_process
from tune_prune.hpo.scheduler import SearchSettings
from tune_prune.hpo.space import Space, to_plan
from tune_prune.hpo.study import STUDY_NAME, load_or_store_initial, open_study
from tune_prune.hpo.trials import Trials
from tune_prune.results.confidence import Confirmation
from tune_prune.results.run_info import RunInfo
from tune_prune.workflows import dashboard, initial_trials, profiling
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.finalize import Ending, confirm_and_refit, read_final_summary, select_front, write_results
from tune_prune.workflows.preparation import Prepared, cached_statistics, fingerprint, format_budget, prepare
from tune_prune.workflows.profiling import Timings, measure_timings
from tune_prune.workflows.progress import FILES, Progress

POLL = 0.5
"""Seconds between two looks at what other processes have done, once there is nothing else to do."""

RAY_START = 6.0
"""Seconds that Ray takes to start, about."""


def search(
    config: Config,
    space: Space,
    run_dir: Path,
    console: SearchConsole,
    text: str | None = None,
    began: float | None = None,
) -> int:
    """Search, or go on with a search, in a run directory. Returns the exit code: 0, 3, 130 or 143.

    `text` is what the space's file says where the search is a new one; `began` when the time budget began to run, by
    `time.monotonic()`. Raises `UserError` for what is wrong with the settings and `HeldError` where another process
    holds the directory.
    """
    budget = Budget(config.budget, config.time_budget, time.monotonic() if began is None else began)
    stop = SearchStopper(budget)
    with stop.on_signals():
        console.say(f"{space.name}: {space.model} on {space.data}, {format_budget(config)}, into {run_dir}")
        # before the directory is made: a task that is wrong leaves none behind
        if config.address:
            check_cluster(config, run_dir)
        if config.storage:
            storage.check_url(config.storage)
        loggers.check_loggers(config.logger)
        if config.dashboard:
            dashboard.check_dashboard()
        prepared = prepare(config, space, console.say)
        console.say(
            f"dense model: {prepared.info.dense_val_error:.2f} % validation error; "
            f"limit {prepared.info.limit:.2f} %; {sum(prepared.info.totals.values()):,} weights"
        )
        worker_data = _with_gpu_share(config, space, prepared, console)
        timings = _measure_timings(config, space, prepared, budget)
        with _locked(config, run_dir) as lock:
            if text is not None:
                save_run(run_dir, config, space, text)
            run = _Run(worker_data, space, run_dir, console, prepared, budget, stop, timings, lock)
            info, missing = run.trials()
            code = run.ending(info)
    if stop.signal is not None:
        console.say(f"interrupted; everything measured is kept: go on with --resume {run_dir}")
        return 130 if stop.signal == signal.SIGINT else 143
    if stop.reason and stop.reason == stop.fault():
        raise RuntimeError(f"{stop.reason}; what was measured is in {run_dir}")
    if missing and not stop.reason:
        raise RuntimeError(f"Ray ended {missing} trials early, see ray.log; go on with --resume {run_dir}")
    return code


def _with_gpu_share(config: Config, space: Space, prepared: Prepared, console: SearchConsole) -> Config:
    """The settings with the share of a GPU that a trial needs here, where the user named none."""
    if config.torch_device == "cpu" or config.gpus_per_trial is not None:
        return config
    device = torch.device(config.torch_device)
    need = profiling.measure_memory(prepared.task, to_plan(space.midpoint(prepared.info.shapes)), device)
    total = torch.cuda.get_device_properties(device).total_memory
    share = profiling.gpu_share(need, total, (os.cpu_count() or 1) / config.cpus_per_trial / torch.cuda.device_count())
    console.say(f"a trial needs {need / 2**20:.0f} MB on a GPU: {round(1 / share)} at a time on each")
    return replace(config, gpus_per_trial=share)


def _measure_timings(config: Config, space: Space, prepared: Prepared, budget: Budget) -> Timings:
    """How long things take, where time is short; a `UserError` where it does not hold a single round."""
    if budget.seconds is None:
        return Timings(0.0, 0.0)
    plan = to_plan(space.midpoint(prepared.info.shapes))
    timings = measure_timings(prepared.task, plan, torch.device(config.own_device), max(1, int(config.cpus_per_trial)))
    round_ = timings.round_of(plan)
    others = budget.elapsed + RAY_START + FILES + 2 * timings.evaluation  # of the test images, at least
    if budget.seconds < others + round_:
        takes = f"a round takes {round_:.1f} s here, and all that comes before and after it {others:.0f} s"
        least = math.ceil(others + round_)
        raise UserError(f"--time-budget {budget.seconds:g}s is too short: {takes}; give at least {least}s")
    return timings


@contextmanager
def _locked(config: Config, run_dir: Path) -> Iterator[RunLock]:
    """A run directory to work in: held where its study is in a file, with others where it is on a server."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if config.storage:
        with join_run(run_dir) as lock:
            yield lock
        return
    try:
        held = FileLock(run_dir / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise HeldError(f"{run_dir}: another process works there; wait for it, or name another --run-dir") from error
    with held:
        yield sole_process(run_dir)


@dataclass(frozen=True)
class _Run:
    """One process's part of a search, in a directory that it holds."""

    config: Config
    space: Space
    run_dir: Path
    console: SearchConsole
    prepared: Prepared
    budget: Budget
    stop: SearchStopper
    timings: Timings
    lock: RunLock

    def trials(self) -> tuple[RunInfo, float]:
        """Run what is missing: the run's facts with the concurrency it had, and the trials that are missing still."""
        config, made, info = self.config, self.prepared.task, self.prepared.info
        searcher = self._searcher()
        trials = searcher.trials
        threads = max(1, int(config.cpus_per_trial))
        statistics = cached_statistics(self.space, made, config, self.console.say) if trials.remaining else {}
        worker_data = WorkerData.create(
            made, self.run_dir, info.limits, config.torch_device, threads, statistics, config.trial_timeout
        )
        if trials.remaining and not self.stop.reason:
            with ray_session(config, worker_data.nbytes, self.run_dir / "ray.log") as concurrency, self.console:
                self.stop.judge, self.stop.fault = searcher.should_stop, searcher.failure_reason
                self.stop.out_of_memory = lambda: searcher.out_of_memory
                with (
                    dashboard.serve_dashboard(self._storage(), self.console.say) if config.dashboard else nullcontext()
                ):
                    info = replace(info, concurrency=self._until_done(worker_data, searcher, concurrency))
            # Ray's scratch, nothing is read from it
            shutil.rmtree(self.run_dir / "ray" / (self.lock.name or ""), ignore_errors=True)
        return info, trials.remaining

    def _until_done(self, worker_data: WorkerData, searcher: StudySearcher, concurrency: int) -> int:
        """Run trials while any are missing and nothing ends the search; returns how many ran at a time at last."""
        config, trials = self.config, searcher.trials
        while True:
            searcher.exclusive_device = has_exclusive_device(config, concurrency)
            run_trials(worker_data, searcher, config, concurrency, self.stop)
            if searcher.fatal_error is not None:
                raise searcher.fatal_error
            if searcher.out_of_memory and not self.stop.reason:
                config, concurrency = reduce_concurrency(config, concurrency)
                searcher.restart_interrupted()
                self.console.say(f"a trial ran out of memory beside others: {concurrency} at a time from here on")
                continue
            # what a process left behind that died
            while trials.process and trials.remaining and not self.stop.stop_all() and not searcher.has_work():
                time.sleep(POLL)
            if not trials.process or not trials.remaining or self.stop.stop_all():
                return concurrency

    def _storage(self) -> storage.Storage:
        return storage.open_url(self.config.storage) if self.config.storage else storage.open_file(self.run_dir)

    def _searcher(self) -> StudySearcher:
        """The searcher of the run's study, which is begun or gone on with."""
        config, space, info = self.config, self.space, self.prepared.info
        storage = self._storage()
        with self.lock.exclusive():
            study = open_study(storage, config.study or STUDY_NAME, self.run_dir, fingerprint(space, info), info.limits)
            first = load_or_store_initial(
                study, lambda: initial_trials.plan_initial_trials(space, self.prepared, config, self.console.say)
            )
        settings = SearchSettings(
            budget=self.budget,
            dense_error=info.dense_val_error,
            limits=info.limits,
            refine=space.refine,
            initial_points=space.initial_params(info.shapes),
            levels=first["levels"],
            features=space.features,
            totals=info.totals,
            refinement_seconds=space.refine.rounds * self.timings.of(space.refine.steps // space.refine.rounds),
            max_failures=config.max_failures,
            noise=standard_error(info.dense_val_error, len(self.prepared.task.validation.labels)),
        )
        progress = Progress(info, self.console, self.budget, self.timings.evaluation)
        parameters = space.parameters_for(info.shapes, initial_trials.stored_curves(first))
        trials = Trials(study, self.run_dir, parameters, settings, config.sampler, config.seed, self.lock)
        return StudySearcher(trials, progress.update)

    def ending(self, info: RunInfo) -> int:
        """Do with the front what was asked for, and tell, one process at a time; returns the exit code."""
        if self.lock.name is None:
            return self._ending(info)
        with FileLock(self.run_dir / ".lock"):
            summary = read_final_summary(self.run_dir)
            if summary is None:
                return self._ending(info)
            self.console.say(f"another process has written the front: {self.run_dir}")
            return 0 if summary["front"] else 3

    def _ending(self, info: RunInfo) -> int:
        confirmed: dict[str, Confirmation] = {}
        refitted: dict[str, str] = {}
        if not self._interrupted():
            found, members = select_front(self.run_dir, self.stop.reason, self.prepared.info.limits)
            confirmed, refitted = confirm_and_refit(
                self.run_dir,
                self.config,
                self.space,
                self.prepared,
                found,
                members,
                self._interrupted,
                self.console.say,
            )
        own = resource.getrusage(resource.RUSAGE_SELF)
        reason = "interrupted" if self._interrupted() else self.stop.reason
        ending = Ending(reason, self.budget.elapsed, own.ru_utime + own.ru_stime, confirmed, refitted)
        return write_results(self.run_dir, self.prepared.task, info, self.prepared.load_test, self.console, ending)

    def _interrupted(self) -> bool:
        return self.stop.signal is not None
