"""Sensitivity with retraining, spread over Ray's workers: cells do not depend on each other."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from tune_prune.config import Config
from tune_prune.pruning import Known
from tune_prune.sensitivity import Cell, Sensed, retrained
from tune_prune.task import Task
from tune_prune.trainable import Shared
from tune_prune.tuning import started_ray


def _measure(shared: Shared, cell: Cell) -> Sensed:
    """What a worker does: shared memory back to a task, and one cell of it."""
    torch.set_num_threads(shared.threads)
    return retrained(shared.task(), cell, torch.device(shared.device), shared.statistics())


def each(task: Task, cells: Sequence[Cell], config: Config, known: Known, log: Path) -> Iterator[Sensed]:
    """Measure every cell, as many at a time as fit; what is finished is yielded at once, in any order.

    Ray talks to the file `log`.
    """
    if not cells:
        return
    shared = Shared.of(task, log.parent, 100.0, config.torch_device, max(1, int(config.cpus_per_trial)), known)
    with started_ray(config, shared.nbytes, log) as concurrency:
        remote = ray.remote(num_cpus=config.cpus_per_trial, num_gpus=config.gpu_share, max_retries=2)(_measure)
        stored, todo = ray.put(shared), list(cells)
        running: list[Any] = []
        while todo or running:
            while todo and len(running) < concurrency:
                running.append(remote.remote(stored, todo.pop(0)))
            done, running = ray.wait(running)
            yield from ray.get(done)
