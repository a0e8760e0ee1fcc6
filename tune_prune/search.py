"""A search from beginning to end: prepare, let Ray and Optuna work, and write what they found."""

import math
import resource
import shutil
import signal
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from tune_prune.afterwards import confirm_and_refit
from tune_prune.budget import Budget
from tune_prune.config import Config, save
from tune_prune.confirm import Confirmed
from tune_prune.errors import HeldError, UserError
from tune_prune.pace import measure as measure_pace
from tune_prune.preparation import Prepared, extent, fingerprint, first_levels, known_statistics, prepare
from tune_prune.progress import FILES, Progress
from tune_prune.results import RunInfo
from tune_prune.screen import Screen
from tune_prune.searcher import Goal, StudySearcher
from tune_prune.space import Space, to_plan
from tune_prune.study import levels_of, open_study
from tune_prune.telling import Ending, chosen, tell
from tune_prune.trainable import Shared
from tune_prune.tuning import Stop, run_trials, started_ray

RAY_START = 6.0
"""Seconds that Ray takes to start, about."""


def search(
    config: Config, space: Space, run_dir: Path, screen: Screen, text: str | None = None, began: float | None = None
) -> int:
    """Search, or go on with a search, in a run directory. Returns the exit code: 0, 3, 130 or 143.

    `text` is what the space's file says where the search is a new one; `began` when the time budget began to run, by
    `time.monotonic()`. Raises `UserError` for what is wrong with the settings and `HeldError` where another process
    holds the directory.
    """
    budget = Budget(config.budget, config.time_budget, time.monotonic() if began is None else began)
    stop = Stop(budget)
    with stop.on_signals():
        screen.say(f"{space.name}: {space.model} on {space.data}, {extent(config)}, into {run_dir}")
        prepared = prepare(config, space)  # before the directory is made: a task that is wrong leaves none behind
        screen.say(
            f"dense model: {prepared.info.dense_val_error:.2f} % validation error; "
            f"limit {prepared.info.limit:.2f} %; {sum(prepared.info.totals.values()):,} weights"
        )
        evaluation = _enough_time(config, space, prepared, budget) if config.time_budget else 0.0
        with _lock(run_dir):
            if text is not None:
                save(run_dir, config, space, text)
            info, missing = _run(config, space, run_dir, screen, prepared, stop, budget, evaluation)
            code = _end(config, space, run_dir, screen, replace(prepared, info=info), stop, budget)
    if stop.signal is not None:
        screen.say(f"interrupted; everything measured is kept: go on with --resume {run_dir}")
        return 130 if stop.signal == signal.SIGINT else 143
    if missing and not stop.reason:
        raise RuntimeError(f"Ray ended {missing} trials early, see ray.log; go on with --resume {run_dir}")
    return code


def _enough_time(config: Config, space: Space, prepared: Prepared, budget: Budget) -> float:
    """Seconds of an evaluation; a `UserError` where the time does not hold a single round."""
    labels = prepared.info.labels
    plan = to_plan(space.middle(labels))
    pace = measure_pace(prepared.task, plan, torch.device(config.torch_device), max(1, int(config.cpus_per_trial)))
    round_ = pace.round_of(plan)
    others = budget.gone + RAY_START + FILES + 2 * pace.evaluation  # of the test images, at least
    assert budget.seconds is not None
    if budget.seconds < others + round_:
        takes = f"a round takes {round_:.1f} s here, and all that comes before and after it {others:.0f} s"
        least = math.ceil(others + round_)
        raise UserError(f"--time-budget {budget.seconds:g}s is too short: {takes}; give at least {least}s")
    return pace.evaluation


def _lock(run_dir: Path) -> AbstractContextManager[object]:
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(run_dir / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise HeldError(f"{run_dir}: another process works there; wait for it, or name another --run-dir") from error


def _searcher(
    config: Config,
    space: Space,
    run_dir: Path,
    prepared: Prepared,
    budget: Budget,
    progress: Progress,
    screen: Screen,
) -> StudySearcher:
    """The searcher of a run's study, which is begun or gone on with."""
    info = prepared.info
    study = open_study(config.storage, run_dir, fingerprint(space, info))
    goal = Goal(
        budget=budget,
        dense_error=info.dense_val_error,
        limit=info.limit,
        finish=space.finish,
        guesses=space.queue(info.labels),
        levels=levels_of(study, lambda: first_levels(space, prepared, config, screen.say)),
        economy=space.economy,
        totals=info.totals,
    )
    knobs = space.params(info.labels)
    return StudySearcher(study, run_dir, knobs, goal, config.sampler, config.seed, progress.update)


def _run(
    config: Config,
    space: Space,
    run_dir: Path,
    screen: Screen,
    prepared: Prepared,
    stop: Stop,
    budget: Budget,
    evaluation: float,
) -> tuple[RunInfo, float]:
    """Run what is missing: the run's facts with the concurrency it had, and the trials that are missing still."""
    info = prepared.info
    progress = Progress(run_dir, info, screen, budget, evaluation)
    searcher = _searcher(config, space, run_dir, prepared, budget, progress, screen)
    threads = max(1, int(config.cpus_per_trial))
    statistics = known_statistics(space, prepared.task, config, screen.say) if searcher.missing else {}
    shared = Shared.of(prepared.task, run_dir, info.limit, config.torch_device, threads, statistics)
    if searcher.missing and not stop.reason:
        with started_ray(config, shared.nbytes, run_dir / "ray.log") as concurrency, screen:
            info = replace(info, concurrency=concurrency)
            stop.judge = searcher.judge
            run_trials(shared, searcher, config, concurrency, stop)
        shutil.rmtree(run_dir / "ray", ignore_errors=True)  # Ray's scratch, nothing is read from it
    return info, searcher.missing


def _end(
    config: Config, space: Space, run_dir: Path, screen: Screen, prepared: Prepared, stop: Stop, budget: Budget
) -> int:
    """Do with the front what was asked for, and tell; returns the exit code."""
    confirmed: dict[str, Confirmed] = {}
    refitted: dict[str, str] = {}
    if stop.signal is None:
        found, members = chosen(run_dir, stop.reason)
        interrupted = lambda: stop.signal is not None  # noqa: E731 - a signal may come at any time
        confirmed, refitted = confirm_and_refit(
            run_dir, config, space, prepared, found, members, interrupted, screen.say
        )
    own = resource.getrusage(resource.RUSAGE_SELF)
    reason = "interrupted" if stop.signal is not None else stop.reason
    ending = Ending(reason, budget.gone, own.ru_utime + own.ru_stime, confirmed, refitted)
    return tell(run_dir, prepared.task, prepared.info, prepared.load_test, screen, ending)
