"""What all workers of a search share: the task as arrays, the constraints, and statistics measured once."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tune_prune.export import costs
from tune_prune.pruning import layers
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.constraints import Constraints
from tune_prune.tasks import in_memory
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.splits import Split, as_float
from tune_prune.tasks.task import Task


@dataclass(frozen=True)
class WorkerData:
    """A task as NumPy arrays, which Ray's object store gives to every worker of a machine without a copy.

    `uses` are the multiply-adds of a weight of each layer for a sample. A trial has `threads` and ends after `timeout`
    seconds, None: never. `cached` are the expensive statistics of the dense model, by name and layer; `models` are
    models that were passed as objects, and `registered_layers` the classes of layers that users registered. `data` is
    the name of the data.
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
    models: Mapping[str, in_memory.Model]
    registered_layers: Mapping[type[nn.Module], tuple[layers.Weight, ...]]
    data: str = ""

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
        arrays = {
            "train": task.train.inputs, "train_labels": task.train.labels, "teacher": task.teacher,
            "validation": task.validation.inputs, "validation_labels": task.validation.labels,
        }  # fmt: skip
        weights = {key: _to_array(value) for key, value in task.weights.items()}
        numpy = {key: _to_array(value) for key, value in arrays.items()}
        found = {
            name: {label: _to_array(v.cpu()) for label, v in values.items()} for name, values in (cached or {}).items()
        }
        models = in_memory.find_models(task.model)
        uses = costs.count_uses(task.dense_model(torch.device("cpu")), as_float(task.train.inputs[:2].cpu()))
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
            models,
            dict(layers.registered),
            task.data,
        )

    @property
    def nbytes(self) -> int:
        """The size of the arrays in bytes."""
        cached = [array for values in self.cached.values() for array in values.values()]
        return sum(array.nbytes for array in [*self.arrays.values(), *self.weights.values(), *cached])

    def make_task(self) -> Task:
        """The task on the workers' device; on a CPU its tensors are views of the shared memory."""
        in_memory.keep_models(self.models)
        layers.registered.update(self.registered_layers)
        arrays = {key: _view(value) for key, value in self.arrays.items()}
        train = Split(arrays["train"], arrays["train_labels"])
        validation = Split(arrays["validation"], arrays["validation_labels"])
        weights = {key: torch.tensor(value) for key, value in self.weights.items()}
        task = Task(self.model, weights, train, validation, arrays["teacher"], self.dense, self.data)
        return task.to(torch.device(self.device))

    def make_statistics(self) -> CachedStatistics:
        """The cached statistics on the workers' device."""
        device = torch.device(self.device)
        return {
            name: {label: _view(v).to(device) for label, v in values.items()} for name, values in self.cached.items()
        }


def _to_array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as an array without a copy; of bfloat16, which NumPy lacks, the same numbers in float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _view(array: np.ndarray) -> torch.Tensor:
    """A tensor over an array without a copy. The store's memory is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
