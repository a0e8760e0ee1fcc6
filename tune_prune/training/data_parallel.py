"""Trains a model in several processes, data-parallel: each computes the gradient of its part of every batch.

All draw the same batches, share out the samples of each, and average their gradients, weighted by samples (Goyal et al.
2017, sec. 3), so that a step is that of one process but for rounding. Batch normalisation is the exception: each part
is normalised by itself, and running statistics are those of rank 0's parts.
"""

import os
import socket
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.parts import Part
from tune_prune.tasks.samples import take_samples
from tune_prune.tasks.splits import AnySplit

if TYPE_CHECKING:  # where torch declares it
    from torch._C._distributed_c10d import TCPStore
else:
    from torch.distributed import TCPStore

Result = TypeVar("Result")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits in a step for the others, before it counts them as lost."""

LOOPBACK = "127.0.0.1"


class LostRankError(RuntimeError):
    """Another process that trains the same model has died, or has not answered in time."""


class Replica:
    """A process's copy of the model that all train; what is wrapped is not the model, but the computation of its loss.

    A loss of the user's therefore gets the model itself. The first one made imports torch's compiler, which takes a
    second or so.
    """

    def __init__(self, model: nn.Module, part: Part) -> None:
        self.part = part
        # a loss may leave out parameters, as those of a head that a batch does not need
        self._replica = DistributedDataParallel(_Computation(model), find_unused_parameters=True)

    def run(self, compute: Callable[[nn.Module], Result], *, synchronize: bool = True) -> Result:
        """Calls `compute` with the model; `backward` of what it returns then averages gradients over all processes.

        Without `synchronize` they are only added up, for a later call to average.
        """
        with nullcontext() if synchronize else self._replica.no_sync():
            result: Result = self._replica(compute)
        return result

    def average(self, value: Tensor) -> Tensor:
        """Returns the mean of a tensor over all processes."""
        summed = value.clone()
        dist.all_reduce(summed)
        return summed / self.part.ranks


class _Computation(nn.Module):
    """Runs what it is given on a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[nn.Module], Result]) -> Result:
        return compute(self.model)


def check_shared_out(split: AnySplit, processes: int) -> None:
    """Raises a `UserError` where so many processes cannot train together on a split."""
    if processes == 1:
        return
    option = f"--workers-per-trial {processes}"
    if split.objective.fit_function is not None:
        name = split.objective.name_of("fit")
        raise UserError(f"{option} with fit {name!r}: a training loop of your own has one process; leave one out")
    if isinstance(split, BatchSplit):
        try:
            for batch in split.head(processes).batches():
                take_samples(batch, slice(1))
        except UserError as error:
            raise UserError(f"{option}: {error}") from error


def open_store(host: str) -> tuple[TCPStore, int]:
    """Opens the store in which processes find each other, at a free port of this machine's address `host`."""
    listener = socket.create_server((host, 0))  # torch's own would listen at every address
    port: int = listener.getsockname()[1]
    store = TCPStore(
        host, port, is_master=True, timeout=TIMEOUT, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    return store, port


def find_store(host: str, port: int) -> TCPStore:
    """Connects to the store that another process has opened."""
    return TCPStore(host, port, timeout=TIMEOUT)


def join(store: TCPStore, part: Part, *, own_gpu: bool) -> None:
    """Joins the group of the processes that train together; returns when all have. NCCL needs a GPU for each."""
    if store.host == LOOPBACK:
        name = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)  # on this machine alone no other needs to reach it
    backend = "nccl" if own_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=part.rank, world_size=part.ranks, timeout=TIMEOUT)


def leave() -> None:
    """Leaves the group where this process has joined one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost_rank(error: BaseException) -> bool:
    """Whether an error of a process is that it has lost another one."""
    gloo = type(error) is RuntimeError and "gloo" in str(error)  # which has no class of its own for it
    return gloo or isinstance(error, dist.DistError | LostRankError)
