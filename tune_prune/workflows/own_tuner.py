"""Prepares a search that a `tune.Tuner` of the user's own runs, and writes its front when that has ended."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.trainable import share_data
from tune_prune.distributed.tuner import SearchStopper, SignalHandler
from tune_prune.hpo import run_files
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.run_lock import lock_run
from tune_prune.tasks import in_memory
from tune_prune.workflows import finalize, from_python
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.preparation import check_surroundings, prepare
from tune_prune.workflows.selection import select_front
from tune_prune.workflows.study_setup import fit_to_machine, make_trials, make_worker_data


@dataclass(frozen=True)
class PreparedSearch:
    """What a `tune.Tuner` is given: `trainable` runs trials, a round a step, `searcher` suggests them.

    `stopper` ends trials early, and the search at its budget. Instead of `searcher`, Ray's own searchers and schedulers
    can be used, with parameters by name as in points.csv: `ratio/<layer>`, `pruner`, `rounds`, `steps`, `lr`. A round
    reports `compression`, in [0, 1], `factor`, `val_error` in percent or the metric of the task, and `rounds`.
    """

    trainable: type
    searcher: StudySearcher
    stopper: SearchStopper
    run_dir: Path


@contextmanager
def prepare_search(
    space: str | Path | None,
    run_dir: str | Path,
    *,
    model: str | in_memory.Model | None = None,
    data: Any = None,
    budget: int | None = None,
    time_budget: str | float | None = None,
    options: Mapping[str, object] | None = None,
) -> Iterator[PreparedSearch]:
    """Prepares a search for a `tune.Tuner` that runs in its block; writes front, report and tables when that ends.

        with tune_prune.prepare_search("lenet5", "runs/own", budget=20) as search:
            tune.Tuner(search.trainable, tune_config=tune.TuneConfig(search_alg=search.searcher, num_samples=20)).fit()
        front = tune_prune.Front.open("runs/own")

    The arguments are those of `tune_prune.search`; `options` are further flags of `tune-prune search`. Raises
    `UserError` for wrong ones, and `HeldError` for a directory that is in use. The Tuner must not be restored: another
    search begins in a new directory.
    """
    began, console = time.monotonic(), SearchConsole(Console(), quiet=True)
    given = {"model": model, "data": data, "budget": budget, "time_budget": time_budget, "options": options}
    with from_python.names_of_arguments(("run_dir", *given)):
        begun = from_python.begin(from_python.sort_arguments(given), space, console.say)
        config, chosen = begun.config, begun.space
        directory = run_files.new_run_dir(Path(run_dir), chosen.name)
        limit = Budget(config.budget, config.time_budget, began)
        check_surroundings(config, directory)
        prepared = prepare(config, chosen, console.say, begun.loaded)
        config, timings = fit_to_machine(config, chosen, prepared, limit, console)
    info, task = prepared.info, prepared.task
    with lock_run(directory, shared=config.storage is not None) as lock:
        run_files.save_run(directory, config, chosen, begun.text or "", info.metric)
        trials = make_trials(config, chosen, prepared, directory, limit, timings, lock, console)
        searcher = StudySearcher(trials, lambda trials: None)
        stopper = SearchStopper(limit, SignalHandler(), searcher)
        worker_data = make_worker_data(config, chosen, prepared, directory, lock, console.say)
        yield PreparedSearch(share_data(worker_data), searcher, stopper, directory)
        trials.cut_off_running()
        if searcher.fatal_error is not None:
            raise searcher.fatal_error
        front = select_front(directory, info, stopper.end, stopper.failure)
        ending = finalize.Ending(stopper.end, limit.elapsed, time.process_time(), certify=config.certify)
        finalize.write_results(directory, task, info, prepared.load_test, console, front, ending)
