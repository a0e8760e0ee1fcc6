"""What all workers of a search share: the task as arrays, the constraints, and statistics measured once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tune_prune.distributed.shared_splits import SharedSplit, as_view
from tune_prune.export import costs
from tune_prune.export.latency.table import LatencyTable
from tune_prune.pruning import layers
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.constraints import Constraints
from tune_prune.tasks import in_memory
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.settings import DEFAULT, TaskSettings
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.task import Task


@dataclass(frozen=True)
class WorkerData:
    """A task as NumPy arrays, which Ray's object store gives to every worker of a machine without a copy.

    `uses` are the multiply-adds of a weight of each layer for a sample. A trial has `threads` and ends after `timeout`
    seconds, None: never. `cached` are the expensive statistics of the dense model, by name and layer; `objects` are
    models, data and functions that were passed as objects, and `registered_layers` the classes of layers that users
    registered. `data` is the name of the data, and `splits` are its training and validation split; where they are not
    both in memory, there are none, and each worker opens the data for itself. `latency` is the table by which latency
    is predicted, where it is limited or an objective.
    """

    model: str
    weights: dict[str, np.ndarray]
    splits: tuple[SharedSplit, SharedSplit] | None
    teacher: np.ndarray | None
    dense: Evaluation
    run_dir: Path
    limits: Constraints
    uses: Mapping[str, float]
    device: str
    threads: int
    timeout: float | None
    cached: dict[str, dict[str, np.ndarray]]
    objects: Mapping[str, Any]
    registered_layers: Mapping[type[nn.Module], tuple[layers.Weight, ...]]
    data: str = ""
    settings: TaskSettings = DEFAULT
    latency: LatencyTable | None = None

    @classmethod
    def create(
        cls,
        task: Task,
        run_dir: Path,
        limits: Constraints,
        device: str,
        threads: int,
        cached: CachedStatistics | None = None,
        timeout: float | None = None,
        latency: LatencyTable | None = None,
    ) -> "WorkerData":
        """Shares a task: moves its tensors to arrays, and counts the uses of its weights."""
        weights = {key: _to_array(value) for key, value in task.weights.items()}
        train, validation = SharedSplit.share(task.train), SharedSplit.share(task.validation)
        splits = None if train is None or validation is None else (train, validation)
        found = {
            name: {label: _to_array(v.cpu()) for label, v in values.items()} for name, values in (cached or {}).items()
        }
        # what is shared is not opened, and need not be sent
        data = task.data if splits is None else None
        objects = in_memory.find(task.model, data, *task.settings.texts)
        cpu = torch.device("cpu")
        uses = costs.count_uses(task.dense_model(cpu), task.train.head(2).to(cpu))
        return cls(
            task.model,
            weights,
            splits,
            None if task.teacher is None else task.teacher.numpy(),
            task.dense,
            run_dir,
            limits,
            uses,
            device,
            threads,
            timeout,
            found,
            objects,
            dict(layers.registered),
            task.data,
            task.settings,
            latency,
        )

    @property
    def nbytes(self) -> int:
        """The size of the arrays in bytes."""
        arrays = [*self.weights.values(), *(array for values in self.cached.values() for array in values.values())]
        arrays += [] if self.teacher is None else [self.teacher]
        return sum(array.nbytes for array in arrays) + sum(split.nbytes for split in self.splits or ())

    def make_task(self) -> Task:
        """The task on the workers' device; on a CPU its tensors are views of the shared memory."""
        in_memory.keep_all(self.objects)
        layers.registered.update(self.registered_layers)
        weights = {key: torch.tensor(value) for key, value in self.weights.items()}
        train, validation = self._open_splits()
        teacher = None if self.teacher is None else as_view(self.teacher)
        task = Task(self.model, weights, train, validation, teacher, self.dense, self.data, self.settings)
        return task.to(torch.device(self.device))

    def _open_splits(self) -> tuple[AnySplit, AnySplit]:
        """Training and validation split."""
        if self.splits is None:
            data = load_data(self.data, settings=self.settings, model=self.model)
            return data.train, data.validation
        train, validation = self.splits
        return train.open(self.settings, training=True), validation.open(self.settings, training=False)

    def make_statistics(self) -> CachedStatistics:
        """The cached statistics on the workers' device."""
        device = torch.device(self.device)
        return {
            name: {label: as_view(v).to(device) for label, v in values.items()} for name, values in self.cached.items()
        }


def _to_array(tensor: Tensor) -> np.ndarray:
    """The tensor as an array without a copy; of bfloat16, which NumPy lacks, the same numbers in float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
