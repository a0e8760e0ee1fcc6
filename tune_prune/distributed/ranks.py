"""The processes that train a trial together: this one, rank 0, and further actors in the trial's placement group.

Rank 0 prunes and evaluates alone. For each retraining the others get its weights and masks through Ray's object store,
so that these are equal everywhere, and then train along in a group of torch's (`training.data_parallel`).
"""

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor

from tune_prune.distributed.worker_data import WorkerData
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.iterative import State, retrain
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.models import load_state
from tune_prune.tasks.parts import Part
from tune_prune.tasks.splits import AnySplit
from tune_prune.training import data_parallel
from tune_prune.training.data_parallel import LostRankError
from tune_prune.training.loop import DivergedError, Teacher

ANSWER_TIMEOUT = 60.0
"""Seconds to wait for what ended a process that has been lost; Ray needs some until it gives up a machine."""

REPORTED = 2.0
"""Seconds within which Ray has sent an error to rank 0."""


@dataclass(frozen=True)
class Job:
    """A retraining: the model's state dict, masks and channels after pruning, the plan's round, and the generator."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    groups: Sequence[Group]
    plan: Plan
    round_: int
    generator: Tensor


class Rank:
    """A process that trains along with rank 0; an actor of Ray."""

    def __init__(self, worker_data: WorkerData, part: Part, own_gpu: bool) -> None:
        torch.set_num_threads(worker_data.threads)
        self._worker_data, self._part, self._own_gpu = worker_data, part, own_gpu

    def load(self) -> None:
        """Opens the data, and makes the model."""
        self._device = torch.device(self._worker_data.device)
        self._task = self._worker_data.make_task()
        self._model = self._task.dense_model(self._device)

    def join(self, host: str, port: int) -> None:
        """Joins the group of the trial's processes."""
        data_parallel.join(data_parallel.find_store(host, port), self._part, own_gpu=self._own_gpu)

    def retrain(self, job: Job) -> float:
        """Trains along for a round; returns the processor time of this process so far.

        After an error the process ends, since the others wait in the group for what it would have sent.
        """
        try:
            load_state(self._model, job.weights)
            masks = {label: mask.to(self._device) for label, mask in job.masks.items()}
            state = State(self._model, masks, groups=job.groups)
            generator = torch.Generator()
            generator.set_state(job.generator)
            teacher = self._task.make_teacher(job.plan.distill)
            with suppress(DivergedError):  # which rank 0 raises at the same step
                retrain(state, job.plan, job.round_, self._task.train, generator, teacher, self._part)
            return time.process_time()
        except Exception:
            threading.Timer(REPORTED, os._exit, [1]).start()
            raise


class Ranks:
    """The further processes of this one's trials; they start at once, and load their data while this one does.

    `stored` is the `WorkerData` in Ray's object store. Each bundle of this process's placement group is for a process.
    """

    def __init__(self, stored: ray.ObjectRef) -> None:
        self._stored, self._placement = stored, get_current_placement_group()
        bundles = self._placement.bundle_specs
        self._bundle, self._part = bundles[0], Part(0, len(bundles))
        self._actors: list[Any] = []
        self._joined = False
        self._cpu_seconds: list[float] = []
        self._earlier_cpu_seconds = 0.0
        self._start()

    def cpu_seconds(self) -> float:
        """The processor time of all processes, as they have told last."""
        return time.process_time() + self._earlier_cpu_seconds + sum(self._cpu_seconds)

    def retrain(
        self,
        state: State,
        plan: Plan,
        round_: int,
        train: AnySplit,
        generator: torch.Generator,
        teacher: Teacher | None = None,
        /,
    ) -> None:
        """Retrains as `iterative.retrain` does, in all processes.

        Raises what one of them has raised, and `LostRankError` where one has died. They are started anew after that.
        """
        if not plan.recipe_at(round_).steps:
            return
        running: Sequence[Any] = ()
        diverged = None
        try:
            self._join()
            weights = {key: value.detach().cpu() for key, value in state.model.state_dict().items()}
            masks = {label: mask.cpu() for label, mask in state.masks.items()}
            job = ray.put(Job(weights, masks, state.groups, plan, round_, generator.get_state()))
            running = [actor.retrain.remote(job) for actor in self._actors]
            try:
                retrain(state, plan, round_, train, generator, teacher, self._part)
            except DivergedError as error:
                diverged = error
            self._cpu_seconds = ray.get(running)
        except Exception as error:
            self._fail(error, running)
        if diverged is not None:
            raise diverged

    def stop(self) -> None:
        """Ends the other processes."""
        for actor in self._actors:
            ray.kill(actor)
        data_parallel.leave()
        self._earlier_cpu_seconds += sum(self._cpu_seconds)
        self._actors, self._joined, self._cpu_seconds = [], False, []

    def _start(self) -> None:
        how = {"num_cpus": self._bundle.get("CPU", 0), "num_gpus": self._bundle.get("GPU", 0), "max_restarts": 0}
        for rank in range(1, self._part.ranks):
            where = PlacementGroupSchedulingStrategy(self._placement, placement_group_bundle_index=rank)
            actor = ray.remote(Rank).options(**how, scheduling_strategy=where)
            self._actors.append(actor.remote(self._stored, Part(rank, self._part.ranks), self._own_gpu))
        self._loaded = [actor.load.remote() for actor in self._actors]

    @property
    def _own_gpu(self) -> bool:
        return bool(self._bundle.get("GPU", 0) >= 1)

    def _join(self) -> None:
        """Makes the group, once all processes are there; data may take long to open."""
        if self._joined:
            return
        if not self._actors:
            self._start()
        ray.get(self._loaded)
        host = get_node_ip_address()
        self._store, port = data_parallel.open_store(host)
        joining = [actor.join.remote(host, port) for actor in self._actors]
        data_parallel.join(self._store, self._part, own_gpu=self._own_gpu)
        ray.get(joining)
        self._joined = True

    def _fail(self, error: Exception, running: Sequence[Any]) -> NoReturn:
        """Ends the other processes, and raises the cause of an error: where some were lost, what one of them raised."""
        found = [_cause(error)]
        if not _is_own(found[0]) and running:
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=ANSWER_TIMEOUT)
            found += [one for call in ended if (one := _error_of(call)) is not None]
        self.stop()
        own = next((one for one in found if _is_own(one)), None)
        if own is None:
            raise LostRankError("a process that trained along has died") from error
        raise own


def _error_of(call: Any) -> Exception | None:
    """What a call of an actor that has ended has raised."""
    try:
        ray.get(call)
    except RayError as error:
        return _cause(error)
    return None


def _cause(error: Exception) -> Exception:
    """What an actor has raised, without Ray's words around it; another error as it is."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return cause if isinstance(cause, Exception) else error


def _is_own(error: Exception) -> bool:
    """Whether an error is a process's own, and not that it has lost another one."""
    return not isinstance(error, RayError) and not data_parallel.is_lost_rank(error)
