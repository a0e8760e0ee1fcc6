"""Runs jobs that do not depend on each other on Ray's workers."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ray
import torch

from tune_prune.common.errors import describe_error
from tune_prune.distributed.session import ray_session
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.constraints import NO_CONSTRAINTS
from tune_prune.tasks.task import Task
from tune_prune.training.resources import Resources

Job = TypeVar("Job")
Result = TypeVar("Result")
Work = Callable[[Task, Job, torch.device, CachedStatistics], Result]
"""What does a job: a function of a module, so that a worker finds it. It is given the task, on the worker's device, the
job, the device, and statistics that were measured before."""

POLL = 0.5
"""Seconds after which `is_stopped` is asked again."""


class ParallelMap(Protocol):
    """Does every job: yields it with its result, or with what it raised, as soon as it is done, in any order."""

    def __call__(  # noqa: D102 - said above
        self, work: Work[Job, Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[Job, Result | Exception]]: ...


def _never() -> bool:
    return False


@contextmanager
def worker_pool(
    task: Task,
    resources: Resources,
    cached: CachedStatistics,
    log: Path,
    is_stopped: Callable[[], bool] = _never,
) -> Iterator[ParallelMap]:
    """Yields a `ParallelMap` that runs jobs on Ray's workers, as many at a time as fit.

    Ray is started for the first job and stopped at the end of the block. It logs to the file `log`, also the traceback
    of a job that raises. Soon after `is_stopped` returns True no job is yielded or begun any more; those that run then
    end with the block.
    """
    resources = resources.of_one_process
    with ExitStack() as block:

        @cache
        def start() -> tuple[Any, int]:
            worker_data = WorkerData.create(
                task, log.parent, NO_CONSTRAINTS, resources.torch_device, resources.threads, cached
            )
            concurrency = block.enter_context(ray_session(resources, worker_data.nbytes, log))
            return ray.put(worker_data), concurrency

        def parallel_map(work: Work[Job, Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result | Exception]]:
            if not jobs or is_stopped():
                return
            stored, concurrency = start()
            cpus, gpus = resources.cpus_per_trial, resources.gpu_share
            remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(_run_job)
            todo, running = deque(jobs), dict[Any, Job]()
            while (todo or running) and not is_stopped():
                while todo and len(running) < concurrency:
                    job = todo.popleft()
                    running[remote.remote(stored, work, job)] = job
                for done in ray.wait(list(running), timeout=POLL)[0]:
                    yield running.pop(done), _get_result(done)

        yield parallel_map


def _run_job(worker_data: WorkerData, work: Work[Job, Result], job: Job) -> Result:
    """Does one job on a worker, whose task lies in shared memory."""
    torch.set_num_threads(worker_data.threads)
    return work(worker_data.make_task(), job, torch.device(worker_data.device), worker_data.make_statistics())


def _get_result(done: Any) -> Any:
    """Reads the result of a job, or what it raised; a worker that dies again after each retry raises too."""
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:
        logging.getLogger("ray").error("%s", error)
        return getattr(error, "cause", error)  # what the job raised, where it did, without Ray's words around it


def collect_results(outcomes: Iterable[tuple[Job, Result | Exception]]) -> Iterator[Result]:
    """Yields the results of jobs. Where jobs raised, a `RuntimeError` names the first of them after all results."""
    raised = []
    for job, result in outcomes:
        if isinstance(result, Exception):
            raised.append((job, result))
        else:
            yield result
    for job, error in raised:
        raise RuntimeError(f"{len(raised)} failed; {job}: {describe_error(error)}") from error
