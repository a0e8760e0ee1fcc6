"""Jobs that do not depend on each other, spread over Ray's workers."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ray
import torch

from tune_prune.distributed.session import ray_session
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo.config import Config
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.constraints import Constraints
from tune_prune.tasks.task import Task

Job = TypeVar("Job")
Result = TypeVar("Result")
Work = Callable[[Task, Job, torch.device, CachedStatistics], Result]
"""A function of a module, so that a worker finds it: the task on the worker's device, a job, and what `prune` takes."""

POLL = 0.5
"""Seconds between two looks at whether to stop."""


class ParallelMap(Protocol):
    """Does every job: yields it with its result, or with what it raised, as soon as it is done, in any order."""

    def __call__(  # noqa: D102 - said above
        self, work: Work[Job, Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[Job, Result | Exception]]: ...


def _never() -> bool:
    return False


@contextmanager
def worker_pool(
    task: Task, config: Config, known: CachedStatistics, log: Path, stopped: Callable[[], bool] = _never
) -> Iterator[ParallelMap]:
    """What does jobs on Ray's workers, as many at a time as fit. Ray is there from the first job to the block's end.

    It talks to the file `log`, where a job that raises leaves its traceback. Soon after `stopped` says so nothing more
    is yielded or begun; what runs then ends with the block.
    """
    with ExitStack() as block:

        @cache
        def begun() -> tuple[Any, int]:
            threads = max(1, int(config.cpus_per_trial))
            worker_data = WorkerData.create(task, log.parent, Constraints(100.0), config.torch_device, threads, known)
            concurrency = block.enter_context(ray_session(config, worker_data.nbytes, log))
            return ray.put(worker_data), concurrency

        def each(work: Work[Job, Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result | Exception]]:
            if not jobs or stopped():
                return
            stored, concurrency = begun()
            remote = ray.remote(num_cpus=config.cpus_per_trial, num_gpus=config.gpu_share, max_retries=2)(_run_job)
            todo, running = deque(jobs), dict[Any, Job]()
            while (todo or running) and not stopped():
                while todo and len(running) < concurrency:
                    job = todo.popleft()
                    running[remote.remote(stored, work, job)] = job
                for done in ray.wait(list(running), timeout=POLL)[0]:
                    yield running.pop(done), _result(done)

        yield each


def _run_job(worker_data: WorkerData, work: Work[Job, Result], job: Job) -> Result:
    """What a worker does: shared memory back to a task, and one job of it."""
    torch.set_num_threads(worker_data.threads)
    return work(worker_data.task(), job, torch.device(worker_data.device), worker_data.statistics())


def _result(done: Any) -> Any:
    """What a job came to, or what it raised; a worker that dies, again after each retry, raises too."""
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:
        logging.getLogger("ray").error("%s", error)
        return getattr(error, "cause", error)  # what the job raised, where it did, without Ray's words around it


def collect_results(found: Iterable[tuple[Job, Result | Exception]]) -> Iterator[Result]:
    """The results alone. Where jobs raised, all the others come first, and then a `RuntimeError` names the first."""
    raised = []
    for job, result in found:
        if isinstance(result, Exception):
            raised.append((job, result))
        else:
            yield result
    for job, error in raised:
        raise RuntimeError(f"{len(raised)} failed; {job}: {type(error).__name__}: {error}") from error
