"""A search from beginning to end: prepare, let Ray and Optuna work, and write what they found."""

import resource
import shutil
import signal
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from tune_prune.config import Config, save
from tune_prune.errors import HeldError
from tune_prune.preparation import Prepared, fingerprint, first_levels, known_statistics, prepare
from tune_prune.progress import Progress
from tune_prune.results import RunInfo
from tune_prune.screen import Screen
from tune_prune.searcher import Goal, StudySearcher
from tune_prune.space import Space
from tune_prune.study import levels_of, open_study
from tune_prune.telling import Cost, tell
from tune_prune.trainable import Shared
from tune_prune.tuning import Stop, run_trials, started_ray


def search(config: Config, space: Space, run_dir: Path, screen: Screen, text: str | None = None) -> int:
    """Search, or go on with a search, in a run directory. Returns the exit code: 0, 3, 130 or 143.

    `text` is what the space's file says where the search is a new one. Raises `UserError` for what is wrong with the
    settings and `HeldError` where another process holds the directory.
    """
    began = time.monotonic()
    stop = Stop(config.time_budget)
    with stop.on_signals():
        screen.say(f"{space.name}: {space.model} on {space.data}, {config.budget} trials, into {run_dir}")
        prepared = prepare(config, space)  # before the directory is made: a task that is wrong leaves none behind
        screen.say(
            f"dense model: {prepared.info.dense_val_error:.2f} % validation error; "
            f"limit {prepared.info.limit:.2f} %; {sum(prepared.info.totals.values()):,} weights"
        )
        with _lock(run_dir):
            if text is not None:
                save(run_dir, config, space, text)
            info, cost, missing = _run(config, space, run_dir, screen, prepared, stop, began)
            code = tell(run_dir, prepared.task, info, prepared.load_test, cost, screen, stop.reason)
    if stop.signal is not None:
        screen.say(f"interrupted; everything measured is kept: go on with --resume {run_dir}")
        return 130 if stop.signal == signal.SIGINT else 143
    if missing and not stop.reason:
        raise RuntimeError(f"Ray ended {missing} trials early, see ray.log; go on with --resume {run_dir}")
    return code


def _lock(run_dir: Path) -> AbstractContextManager[object]:
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(run_dir / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise HeldError(f"{run_dir}: another process works there; wait for it, or name another --run-dir") from error


def _searcher(
    config: Config, space: Space, run_dir: Path, prepared: Prepared, progress: Progress, screen: Screen
) -> StudySearcher:
    """The searcher of a run's study, which is begun or gone on with."""
    info = prepared.info
    study = open_study(config.storage, run_dir, fingerprint(space, info))
    goal = Goal(
        budget=config.budget,
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
    config: Config, space: Space, run_dir: Path, screen: Screen, prepared: Prepared, stop: Stop, began: float
) -> tuple[RunInfo, Cost, int]:
    """Run what is missing: the run's facts with the concurrency it had, what it cost, and the trials missing still."""
    info = prepared.info
    progress = Progress(run_dir, info, screen, began, config.time_budget)
    searcher = _searcher(config, space, run_dir, prepared, progress, screen)
    threads = max(1, int(config.cpus_per_trial))
    statistics = known_statistics(space, prepared.task, config, screen.say) if searcher.missing else {}
    shared = Shared.of(prepared.task, run_dir, info.limit, config.torch_device, threads, statistics)
    if searcher.missing and not stop.reason:
        with started_ray(config, shared.nbytes, run_dir / "ray.log") as concurrency, screen:
            info = replace(info, concurrency=concurrency)
            stop.judge = searcher.judge
            run_trials(shared, searcher, config, concurrency, stop)
        shutil.rmtree(run_dir / "ray", ignore_errors=True)  # Ray's scratch, nothing is read from it
    own = resource.getrusage(resource.RUSAGE_SELF)
    return info, Cost(time.monotonic() - began, own.ru_utime + own.ru_stime), searcher.missing
