"""A search from beginning to end: prepare, let Ray and Optuna work, and write what they found."""

import hashlib
import resource
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from tune_prune import __version__, criteria, masks, score_cache, task
from tune_prune.config import Config, save
from tune_prune.data import Split, load_data
from tune_prune.errors import HeldError
from tune_prune.measure import Context, draw_sample
from tune_prune.models import build
from tune_prune.pruning import Known, Plan
from tune_prune.results import RunInfo
from tune_prune.rounds import sweep
from tune_prune.screen import Screen, Status
from tune_prune.searcher import Goal, StudySearcher
from tune_prune.space import Space
from tune_prune.study import open_study
from tune_prune.summary import hypervolume_of
from tune_prune.task import Task
from tune_prune.telling import Cost, tell
from tune_prune.trainable import Shared
from tune_prune.tuning import Stop, run_trials, started_ray


@dataclass(frozen=True)
class Prepared:
    """A search that can begin: its task, what is known of it, and how to read the test images."""

    task: Task
    info: RunInfo
    load_test: Callable[[], Split]


def describe(config: Config, space: Space) -> str:
    """What would be searched, checked as a run would be: for `--dry-run`."""
    labels = list(masks.prunable(task.load_dense(space.model, space.weights, space.source)))
    load_data(space.data)
    rows = [f"  {name} = {knob}" for name, knob in space.params(labels).items()]
    what = f"{space.name}: {space.model} on {space.data}"
    head = f"{what}, {config.budget} trials, tradeoff {config.acc_tradeoff:g} points"
    return "\n".join([head, *rows, f"  first guesses: {len(space.queue(labels))}"])


def search(config: Config, space: Space, run_dir: Path, screen: Screen, text: str | None = None) -> int:
    """Search, or go on with a search, in a run directory. Returns the exit code: 0, 3, 130 or 143.

    `text` is what the space's file says where the search is a new one. Raises `UserError` for what is wrong with the
    settings and `HeldError` where another process holds the directory.
    """
    began = time.monotonic()
    stop = Stop(config.time_budget)
    with stop.on_signals():
        screen.say(f"{space.name}: {space.model} on {space.data}, {config.budget} trials, into {run_dir}")
        prepared = _prepare(config, space)  # before the directory is made: a task that is wrong leaves none behind
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


def _prepare(config: Config, space: Space) -> Prepared:
    device = torch.device(config.torch_device)
    labels = list(masks.prunable(build(space.model)))
    space.params(labels)  # a pattern that matches no layer is found before the data is read
    prepared, load_test = task.prepare(space.model, space.data, space.weights, device, space.source)
    model = prepared.dense_model(torch.device("cpu"))
    info = RunInfo(
        space=space.name,
        model=space.model,
        data=space.data,
        seed=config.seed,
        budget=config.budget,
        concurrency=config.max_concurrent or 0,
        device=config.torch_device,
        sampler=config.sampler,
        acc_tradeoff=config.acc_tradeoff,
        dense_val_error=prepared.dense.error,
        labels=tuple(labels),
        totals={label: weight.numel() for label, weight in masks.prunable(model).items()},
        command=_command(),
        versions={"tune_prune": __version__, "python": sys.version.split()[0]}
        | {name: version(name) for name in ("ray", "optuna", "torch", "pandas")},
    )
    return Prepared(prepared, info, load_test)


def _command() -> str:
    """How this process was started, as it would be typed again."""
    name = Path(sys.argv[0]).name
    program = ["python", name] if name.endswith(".py") and name != "__main__.py" else ["tune-prune"]
    return shlex.join([*program, *sys.argv[1:]])


def _fingerprint(space: Space, info: RunInfo) -> str:
    """What must stay the same when a run is resumed; the budget may grow."""
    searched = (space.model, space.data, sorted(space.params(info.labels).items(), key=str))
    goal = (info.acc_tradeoff, info.dense_val_error, space.finish, info.seed, info.sampler)
    return hashlib.sha256(repr((searched, goal)).encode()).hexdigest()


def _run(
    config: Config, space: Space, run_dir: Path, screen: Screen, prepared: Prepared, stop: Stop, began: float
) -> tuple[RunInfo, Cost, int]:
    """Run what is missing: the run's facts with the concurrency it had, what it cost, and the trials missing still."""
    info = prepared.info
    study = open_study(config.storage, run_dir, _fingerprint(space, info))
    goal = Goal(config.budget, info.dense_val_error, info.limit, space.finish)
    progress = _Progress(run_dir, info, screen, began, config.time_budget)
    searcher = StudySearcher(
        study, run_dir, space.params(info.labels), goal, config.sampler, config.seed, progress.update
    )
    searcher.enqueue(space.queue(info.labels))  # those that an earlier process has put there are left out
    threads = max(1, int(config.cpus_per_trial))
    statistics = _known(space, prepared.task, config, screen) if searcher.missing else {}
    shared = Shared.of(prepared.task, run_dir, info.limit, config.torch_device, threads, statistics)
    if searcher.missing and not stop.reason:
        with started_ray(config, shared.nbytes, run_dir / "ray.log") as concurrency, screen:
            info = replace(info, concurrency=concurrency)
            run_trials(shared, searcher, config, concurrency, stop)
        shutil.rmtree(run_dir / "ray", ignore_errors=True)  # Ray's scratch, nothing is read from it
    own = resource.getrusage(resource.RUSAGE_SELF)
    return info, Cost(time.monotonic() - began, own.ru_utime + own.ru_stime), searcher.missing


def _known(space: Space, made: Task, config: Config, screen: Screen) -> Known:
    """What the space's pruners ask for that is too dear to be measured in every round: measured on the dense model."""
    generator, device = torch.Generator().manual_seed(0), torch.device(config.torch_device)
    sample = draw_sample(made.train.to(device), Plan.sample, generator)
    context = Context(made.dense_model(device), sample, generator, screen.say)
    return score_cache.known(sorted(criteria.needs(space.pruners)), context)


class _Progress:
    """Turns what the searcher knows into what the screen shows, and drops weights that nothing needs any more."""

    def __init__(self, run_dir: Path, info: RunInfo, screen: Screen, began: float, time_budget: float | None) -> None:
        self._run_dir, self._info, self._screen = run_dir, info, screen
        self._began, self._time_budget = began, time_budget
        self._first: tuple[float, int] | None = None
        self._swept = 0

    def update(self, searcher: StudySearcher) -> None:
        """Called whenever a trial starts, ends a round, or ends."""
        found = list(searcher.records.values())
        now = time.monotonic()
        if self._first is None:
            self._first = now, len(found)
        if len(found) > self._swept:
            self._swept = len(found)
            sweep(self._run_dir, found, set(searcher.parents.values()))
        feasible = [point for record in found for point in record.points if point.feasible]
        best = max(feasible, key=lambda point: (point.compression, -point.val_error), default=None)
        states = [record.state for record in found]
        self._screen.update(
            Status(
                budget=self._info.budget,
                done=len(found),
                running=searcher.running,
                stopped=states.count("stopped"),
                failed=states.count("failed"),
                best_factor=best.factor if best else None,
                best_error=best.val_error if best else None,
                hypervolume=hypervolume_of(found, self._info),
                seconds=now - self._began,
                seconds_left=self._left(now, len(found)),
            )
        )

    def _left(self, now: float, done: int) -> float | None:
        """Seconds left, at the pace since the first trial of this process began, within the time budget."""
        assert self._first is not None
        since, before = self._first
        budget = None if self._time_budget is None else self._began + self._time_budget - now
        if done == before:
            return budget
        left = (now - since) / (done - before) * (self._info.budget - done)
        return left if budget is None else min(left, budget)
