"""What all workers of a search share: the task as arrays, the constraints, and statistics measured once."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tune_prune.export import costs
from tune_prune.pruning import layers
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.constraints import Constraints
from tune_prune.tasks import in_memory
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import DEFAULT, TaskSettings
from tune_prune.tasks.splits import AnySplit, Split
from tune_prune.tasks.task import Task


@dataclass(frozen=True)
class WorkerData:
    """A task as NumPy arrays, which Ray's object store gives to every worker of a machine without a copy.

    `uses` are the multiply-adds of a weight of each layer for a sample. A trial has `threads` and ends after `timeout`
    seconds, None: never. `cached` are the expensive statistics of the dense model, by name and layer; `objects` are
    models, data and functions that were passed as objects, and `registered_layers` the classes of layers that users
    registered. `data` is the name of the data. Where that is not in memory, there are no `arrays`: each worker opens
    it for itself.
    """

    model: str
    weights: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
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
    scale: float = 255.0

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
    ) -> "WorkerData":
        """Shares a task: moves its tensors to arrays, and counts the uses of its weights."""
        arrays = _list_arrays(task)
        weights = {key: _to_array(value) for key, value in task.weights.items()}
        numpy = {key: _to_array(value) for key, value in arrays.items()}
        found = {
            name: {label: _to_array(v.cpu()) for label, v in values.items()} for name, values in (cached or {}).items()
        }
        objects = in_memory.find(task.model, task.data, *map(str, task.settings.given.values()))
        cpu = torch.device("cpu")
        uses = costs.count_uses(task.dense_model(cpu), task.train.head(2).to(cpu))
        return cls(
            task.model,
            weights,
            numpy,
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
            task.train.scale if isinstance(task.train, Split) else 255.0,
        )

    @property
    def nbytes(self) -> int:
        """The size of the arrays in bytes."""
        cached = [array for values in self.cached.values() for array in values.values()]
        return sum(array.nbytes for array in [*self.arrays.values(), *self.weights.values(), *cached])

    def make_task(self) -> Task:
        """The task on the workers' device; on a CPU its tensors are views of the shared memory."""
        in_memory.keep_all(self.objects)
        layers.registered.update(self.registered_layers)
        weights = {key: torch.tensor(value) for key, value in self.weights.items()}
        train, validation, teacher = self._open_splits()
        task = Task(self.model, weights, train, validation, teacher, self.dense, self.data, self.settings)
        return task.to(torch.device(self.device))

    def _open_splits(self) -> tuple[AnySplit, AnySplit, Tensor | None]:
        """Training and validation split, and the teacher's logits where they are in memory."""
        if not self.arrays:
            data = load_data(self.data, settings=self.settings, model=self.model)
            return data.train, data.validation, None
        arrays = {key: _view(value) for key, value in self.arrays.items()}
        how = self.scale, make_objective(self.settings)
        train = Split(arrays["train"], arrays["train_labels"], *how)
        validation = Split(arrays["validation"], arrays["validation_labels"], *how)
        return train, validation, arrays["teacher"]

    def make_statistics(self) -> CachedStatistics:
        """The cached statistics on the workers' device."""
        device = torch.device(self.device)
        return {
            name: {label: _view(v).to(device) for label, v in values.items()} for name, values in self.cached.items()
        }


def _list_arrays(task: Task) -> dict[str, Tensor]:
    """The tensors of a task that is in memory; of any other none."""
    train, validation = task.train, task.validation
    if not (isinstance(train, Split) and isinstance(validation, Split) and task.teacher is not None):
        return {}
    return {
        "train": train.inputs, "train_labels": train.labels, "teacher": task.teacher,
        "validation": validation.inputs, "validation_labels": validation.labels,
    }  # fmt: skip


def _to_array(tensor: Tensor) -> np.ndarray:
    """The tensor as an array without a copy; of bfloat16, which NumPy lacks, the same numbers in float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _view(array: np.ndarray) -> Tensor:
    """A tensor over an array without a copy. The store's memory is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
