"""The Ray Tune trainable: an adapter around pruning.py, with no science in it. One step is one round."""

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from tune_prune import checkpoint, given, multiply_adds, records, sparse_file
from tune_prune.ancestry import Start
from tune_prune.latency import Latency
from tune_prune.limits import Limits
from tune_prune.plan import Plan
from tune_prune.pruning import Known, Point, State, prune, start
from tune_prune.records import PointRecord, TrialRecord
from tune_prune.space import to_plan
from tune_prune.splits import Split, as_float
from tune_prune.task import Task
from tune_prune.training import Measured
from tune_prune.watchdog import Watchdog


@dataclass(frozen=True)
class Shared:
    """A task as NumPy arrays, which Ray's object store hands to every worker of a machine without copying them."""

    model: str
    weights: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    dense: Measured
    run_dir: Path
    limits: Limits
    uses: Mapping[str, float]
    device: str
    threads: int
    timeout: float | None
    known: dict[str, dict[str, np.ndarray]]
    models: Mapping[str, given.Model]

    @classmethod
    def of(
        cls,
        task: Task,
        run_dir: Path,
        limits: Limits,
        device: str,
        threads: int,
        known: Known | None = None,
        timeout: float | None = None,
    ) -> "Shared":
        """Share a task; `limits` are what points must keep, `known` what `prune` takes, `timeout` a trial's seconds."""
        arrays = {
            "train": task.train.inputs, "train_labels": task.train.labels, "teacher": task.teacher,
            "validation": task.validation.inputs, "validation_labels": task.validation.labels,
        }  # fmt: skip
        weights = {key: value.numpy() for key, value in task.weights.items()}
        numpy = {key: value.numpy() for key, value in arrays.items()}
        found = {
            name: {label: v.cpu().numpy() for label, v in values.items()} for name, values in (known or {}).items()
        }
        models = given.behind(task.model)
        uses = multiply_adds.uses(task.dense_model(torch.device("cpu")), as_float(task.train.inputs[:2].cpu()))
        return cls(
            task.model, weights, numpy, task.dense, run_dir, limits, uses, device, threads, timeout, found, models
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        known = [array for values in self.known.values() for array in values.values()]
        return sum(array.nbytes for array in [*self.arrays.values(), *self.weights.values(), *known])

    def task(self) -> Task:
        """The task again, on the workers' device; on a CPU its tensors are views of the shared memory."""
        given.take(self.models)
        arrays = {key: _view(value) for key, value in self.arrays.items()}
        train = Split(arrays["train"], arrays["train_labels"])
        validation = Split(arrays["validation"], arrays["validation_labels"])
        weights = {key: torch.tensor(value) for key, value in self.weights.items()}
        task = Task(self.model, weights, train, validation, arrays["teacher"], self.dense)
        return task.to(torch.device(self.device))

    def statistics(self) -> Known:
        """What was measured on the dense model, on the workers' device."""
        device = torch.device(self.device)
        return {
            name: {label: _view(v).to(device) for label, v in values.items()} for name, values in self.known.items()
        }


def _view(array: np.ndarray) -> torch.Tensor:
    """A tensor over an array without a copy. The store's memory is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class PruneTrainable(tune.Trainable):
    """One trial: the rounds of a plan, a record of them on disk, and the weights of the rounds that may be wanted."""

    def setup(self, config: dict[str, Any], shared: Shared) -> None:
        """Called once a worker: what all its trials share."""
        torch.set_num_threads(shared.threads)
        self._shared, self._task, self._known = shared, shared.task(), shared.statistics()
        self._latency: Latency | None = None
        if shared.limits.latency:
            dense = self._task.dense_model(torch.device(shared.device))
            self._latency = Latency(dense, as_float(self._task.validation.inputs[:8]))
        self._begin(config)
        self._cpu_began = 0.0  # what the worker took to start is its first trial's

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The worker goes on with another trial."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial: int = config["trial"]
        self._params: dict[str, Any] = config["params"]
        self._finishes: int | None = config.get("finishes")
        self._start_from: Start | None = config.get("start")
        self._plan: Plan = to_plan(self._params)
        self._points: list[PointRecord] = []
        path = records.path_of(self._shared.run_dir, self._trial)
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        # written by a process that gave it up, where Ray begins it again: it has ended
        self._ended = path.is_file() and records.read(path).state in records.FINAL
        self._watchdog = Watchdog(self._shared.timeout, self._give_up)
        self._state = self._start()
        task = self._task
        self._rounds: Iterator[Point] = prune(
            self._state, self._plan, task.train, task.validation, config["seed"], task.teacher, self._known
        )

    def _start(self) -> State:
        """From the dense model, or from the weights and masks of a recorded round, whose rounds are not run again."""
        model = self._task.dense_model(torch.device(self._shared.device))
        state = start(model)
        if self._start_from is not None:
            path = self._shared.run_dir / self._start_from.checkpoint
            saved = checkpoint.read(path)
            checkpoint.load_weights(model, saved, str(path))
            for label, kept in saved.masks.items():
                state.masks[label].copy_(kept)
            state.rounds_done = self._plan.rounds_within(self._start_from.ratios)
        return state

    def _give_up(self) -> None:
        """End this process: what hangs cannot be asked to stop. The trial's record says why."""
        self._report("failed", f"it took longer than --trial-timeout, {self._shared.timeout:g} s")
        os._exit(1)

    def step(self) -> dict[str, Any]:
        """One round. What a trial raises is its own failure, told in its record; the others go on."""
        if self._ended:
            return {"trial": self._trial, "rounds": 0, "done": True}
        try:
            point = next(self._rounds)
        except Exception as error:
            self._watchdog.stop()
            return self._report("failed", " ".join(f"{type(error).__name__}: {error}".split()))
        last = point.round == self._plan.rounds
        if last:
            self._watchdog.stop()
        self._points.append(self._record_point(point, keep=last))
        return self._report("complete" if last else "running")

    def _record_point(self, point: Point, keep: bool) -> PointRecord:
        limits, state = self._shared.limits, self._state
        costs = {
            "macs": multiply_adds.share_left(state.masks, self._shared.uses),
            "bytes": len(sparse_file.dumps(self._task.model, state.model, state.masks)),
        }
        if self._latency:
            costs["latency"] = self._latency.share(state.model)
        feasible = limits.feasible(point.error, costs)
        saved = f"rounds/{self._trial}-{point.round}.safetensors" if keep or feasible else None
        if saved:
            checkpoint.write(self._shared.run_dir / saved, self._task.model, self._state.model, self._state.masks)
        return PointRecord(
            point.round, point.compression, point.factor, point.error, point.loss, feasible, point.seconds,
            point.ratios, saved, point.pooled, costs, limits.within(costs),
        )  # fmt: skip

    def _report(self, state: str, reason: str = "") -> dict[str, Any]:
        record = TrialRecord(
            self._trial, state, self._params, dict(self._plan.pruners), self._points, reason,
            parent=self._start_from.trial if self._start_from else None,
            parent_round=self._start_from.round if self._start_from else None,
            finishes=self._finishes,
            seconds=time.perf_counter() - self._began,
            cpu_seconds=time.process_time() - self._cpu_began,
        )  # fmt: skip
        records.write(self._shared.run_dir, record)
        return {"trial": self._trial, "rounds": len(self._points), "done": state != "running"}
