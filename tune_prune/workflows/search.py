"""Searches from beginning to end: prepares the task, runs trials with Ray and Optuna, and finalizes the results."""

import shutil
import signal
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from tune_prune.common.errors import HeldError
from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.session import has_exclusive_device, ray_session, reduce_concurrency
from tune_prune.distributed.tuner import Interrupted, SearchStopper, SignalHandler, run_trials
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo.budget import Budget, SearchEnd
from tune_prune.hpo.config import Config
from tune_prune.hpo.run_files import save_run
from tune_prune.hpo.run_lock import RunLock, lock_run
from tune_prune.hpo.space import Space
from tune_prune.results.summary import earlier_wall_seconds, read_final_summary
from tune_prune.workflows import dashboard, finalize
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.preparation import (
    LoadedTask,
    Prepared,
    check_surroundings,
    describe_beginning,
    prepare,
)
from tune_prune.workflows.profiling import Timings
from tune_prune.workflows.progress import Progress
from tune_prune.workflows.selection import select_front
from tune_prune.workflows.study_setup import fit_to_machine, make_trials, make_worker_data, open_storage

POLL = 0.5
"""Seconds between two looks at what other processes have done, while this one has no trial to run."""


def search(
    config: Config,
    space: Space,
    run_dir: Path,
    console: SearchConsole,
    text: str | None = None,
    began: float | None = None,
    loaded: LoadedTask | None = None,
) -> int:
    """Searches, or goes on with a search, in a run directory. Returns the exit code: 0, 3, 130 or 143.

    `text` is the content of the space's file for a new search, None for one that goes on; `began` is when the time
    budget began, by `time.monotonic()`; `loaded` as in `prepare`. Raises `UserError` for settings that are wrong and
    `HeldError` where another process holds the directory.
    """
    budget = Budget(config.budget, config.time_budget, time.monotonic() if began is None else began)
    with SignalHandler() as signals, console:
        try:
            prepared, config, timings = _prepare(config, space, run_dir, console, budget, loaded)
            with lock_run(run_dir, shared=config.storage is not None) as lock:
                if text is not None:
                    with lock.exclusive():
                        save_run(run_dir, config, space, text, prepared.info.metric)
                run = _Run(config, space, run_dir, console, prepared, budget, signals, timings, lock)
                run.run_trials()
                signals.is_running = True  # also where no trial was left to run
                code = run.finalize()
        except Interrupted:
            is_begun = (run_dir / "run.json").is_file()
            advice = f"go on with --resume {run_dir}" if is_begun else "nothing is written"
            console.say(f"interrupted before the first trial; {advice}")
            return _exit_code(signals)
    if run.end is SearchEnd.INTERRUPTED:
        console.say(f"interrupted; everything measured is kept: go on with --resume {run_dir}")
        return _exit_code(signals)
    if run.error is not None:
        raise run.error
    if run.remaining and run.end is SearchEnd.BUDGET:
        raise RuntimeError(f"Ray ended {run.remaining} trials early, see ray.log; go on with --resume {run_dir}")
    if code == 3 and (reason := finalize.describe_failure(run_dir)):
        raise RuntimeError(f"{reason}; what was measured is in {run_dir}")
    return code


def _exit_code(signals: SignalHandler) -> int:
    return 130 if signals.number == signal.SIGINT else 143


def _prepare(
    config: Config, space: Space, run_dir: Path, console: SearchConsole, budget: Budget, loaded: LoadedTask | None
) -> tuple[Prepared, Config, Timings]:
    """Loads and measures what a search needs; the settings with what the machine decides, and how long steps take."""
    for line in describe_beginning(config, space, run_dir):
        console.say(line)
    # before the directory is made: a task that is wrong leaves none behind
    check_surroundings(config, run_dir)
    with console.phase("loading model and data, and measuring the dense model"):
        prepared = prepare(config, space, console.say, loaded)
    for line in prepared.info.describe():
        console.say(line)
    return prepared, *fit_to_machine(config, space, prepared, budget, console)


class _Run:
    """One process's part of a search, in a run directory that it has locked."""

    def __init__(
        self,
        config: Config,
        space: Space,
        run_dir: Path,
        console: SearchConsole,
        prepared: Prepared,
        budget: Budget,
        signals: SignalHandler,
        timings: Timings,
        lock: RunLock,
    ) -> None:
        self._config, self._space, self._run_dir, self._console = config, space, run_dir, console
        self._prepared, self._budget, self._signals, self._lock = prepared, budget, signals, lock
        self._info = prepared.info
        self._searcher = self._make_searcher(timings)
        self._stopper = SearchStopper(budget, signals, self._searcher, self._progress.has_enough)

    @property
    def end(self) -> SearchEnd:
        """Why the search ended."""
        return self._stopper.end

    @property
    def error(self) -> Exception | None:
        """What ended the search before its budget, if an error did: its own, or too many failed trials."""
        if self.end is SearchEnd.FAILED:
            return RuntimeError(f"{self._stopper.failure}; what was measured is in {self._run_dir}")
        return self._searcher.fatal_error

    @property
    def remaining(self) -> float:
        """How many trials of the budget have not ended."""
        return self._searcher.trials.remaining

    def run_trials(self) -> None:
        """Runs the trials that remain, and notes how many ran at a time."""
        config, trials, say = self._config, self._searcher.trials, self._console.say
        if not trials.remaining or self._stopper.stop_all():
            return
        worker_data = make_worker_data(config, self._space, self._prepared, self._run_dir, self._lock, say)
        self._signals.is_running = True
        session = ray_session(config.resources, worker_data.nbytes, self._run_dir / "ray.log")
        opened = open_storage(config, self._run_dir, say) if config.dashboard else None
        served = dashboard.serve_dashboard(opened, say) if opened is not None else nullcontext()
        with ExitStack() as block:
            with self._console.phase("starting Ray"):
                concurrency = block.enter_context(session)
            block.enter_context(served)
            concurrency = self._run_until_done(worker_data, concurrency)
        trials.cut_off_running()
        self._info = replace(self._info, concurrency=concurrency)
        # Ray's scratch, nothing is read from it
        shutil.rmtree(self._run_dir / "ray" / (self._lock.name or ""), ignore_errors=True)

    def _run_until_done(self, worker_data: WorkerData, concurrency: int) -> int:
        """Runs trials while any remain and nothing ends the search; returns how many ran at a time at last."""
        config, searcher, trials = self._config, self._searcher, self._searcher.trials
        while True:
            searcher.exclusive_device = has_exclusive_device(config.resources, concurrency)
            run_trials(worker_data, searcher, config, concurrency, self._stopper)
            if isinstance(searcher.fatal_error, HeldError):  # the files are another process's now
                raise searcher.fatal_error
            if searcher.out_of_memory and self.end is SearchEnd.BUDGET:
                resources, concurrency = reduce_concurrency(config.resources, concurrency)
                config = replace(config, resources=resources)
                searcher.restart_cut_off()
                self._console.say(f"a trial ran out of memory beside others: {concurrency} at a time from here on")
                continue
            # trials that another process left when it died
            while trials.process and trials.remaining and not self._stopper.stop_all() and not searcher.has_work():
                time.sleep(POLL)
            if not trials.process or not trials.remaining or self._stopper.stop_all():
                return concurrency

    def _make_searcher(self, timings: Timings) -> StudySearcher:
        """The searcher of the run's study, which is created or goes on."""
        config, console = self._config, self._console
        trials = make_trials(
            config, self._space, self._prepared, self._run_dir, self._budget, timings, self._lock, console
        )
        seconds, parameters = timings.test_for(config.certify), trials.parameters
        self._progress = Progress(
            self._info, console, self._budget, seconds, config.stop_when, run_dir=self._run_dir, parameters=parameters
        )
        self._progress.update(trials)  # of a run that goes on
        return StudySearcher(trials, self._progress.update)

    def finalize(self) -> int:
        """Confirms and refits the front as asked, and writes the results; returns the exit code.

        Of several processes that share the study, the first one does it.
        """
        if self._lock.name is None:
            with self._lock.exclusive():
                return self._finalize()
        with FileLock(self._run_dir / ".lock"):
            summary = read_final_summary(self._run_dir)
            if summary is None:
                return self._finalize()
            self._console.say(f"another process has written the front: {self._run_dir}")
            return 0 if summary["front"] else 3

    def _finalize(self) -> int:
        prepared, console, run_dir = self._prepared, self._console, self._run_dir
        front = select_front(run_dir, self._info, self.end, self._stopper.failure)
        earlier = earlier_wall_seconds(run_dir)

        def ending() -> finalize.Ending:
            done = finalize.read_confirmed_and_refitted(run_dir, self._space, self._info, front)
            seconds = earlier + self._budget.elapsed, time.process_time()
            return finalize.Ending(self.end, *seconds, *done, self._config.certify)

        if front.members and (self._config.confirm or self._config.refit) and ending().is_final:
            # whatever fails from here on, what was found is written
            finalize.write_files(run_dir, finalize.make_outcome(run_dir, prepared.task, self._info, front, ending()))
            finalize.confirm_and_refit(
                run_dir, self._config, self._space, prepared, front, lambda: self._signals.number is not None, console
            )
        return finalize.write_results(run_dir, prepared.task, self._info, prepared.load_test, console, front, ending())
