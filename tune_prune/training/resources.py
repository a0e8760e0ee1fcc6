"""What a network is trained on: the device, processors and GPUs of a trial, how many trials run at a time, and where.

Imports torch only when a function runs: `tune-prune --help` reads the flags that are declared here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tune_prune.common.errors import UserError, describe_choice
from tune_prune.common.flags import check_settings, flag

if TYPE_CHECKING:
    import torch

MACHINE = "Where and how it runs"
"""The panel of the flags of a machine."""

DEVICES = ("auto", "cpu", "cuda")
NO_GPU = "--device cuda: this machine has no GPU that torch can use; use --device cpu or auto"

SHARE_UNMEASURED = 0.25
"""The share of a GPU that a trial takes until its need is measured."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What trials run on. Raises `UserError` where a value is out of bounds or this machine has less.

    None means that the machine decides: `gpus_per_trial` is measured, and as many trials run at a time as fit. A trial
    has `workers_per_trial` processes, and each of them takes its CPUs and GPUs, by default a whole GPU. With the
    `address` of a Ray cluster, processors and GPUs are those of other machines, and are not checked here.
    """

    device: str = field(
        default="auto",
        metadata=flag(
            "auto, cpu or cuda.  [default: auto]",
            MACHINE,
            choices=lambda: DEVICES,
        ),
    )
    cpus_per_trial: float = field(
        default=1.0, metadata=flag("[default: 1]", MACHINE, check=lambda cpus: cpus > 0, rule="above 0")
    )
    gpus_per_trial: float | None = field(
        default=None,
        metadata=flag("[default: what one needs]", MACHINE, check=lambda gpus: gpus >= 0, rule="at least 0"),
    )
    workers_per_trial: int = field(
        default=1,
        metadata=flag(
            "Processes that train one trial together.  [default: the space's, 1]",
            MACHINE,
            check=lambda count: count >= 1,
            rule="at least 1",
        ),
    )
    max_concurrent: int | None = field(
        default=None,
        metadata=flag(
            "Trials at a time.  [default: as many as fit]", MACHINE, check=lambda count: count >= 1, rule="at least 1"
        ),
    )
    address: str | None = field(
        default=None,
        metadata=flag(
            "An existing Ray cluster: auto or HOST:PORT.  [default: local, a Ray of its own]",
            MACHINE,
            parse=lambda text, option: None if text == "local" else text,
        ),
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.address:
            self._check_share()
        else:
            self._check_cpus(os.cpu_count() or 1)
            self._check_gpus(_count_gpus())

    def _check_share(self) -> None:
        if self.device == "cuda" and self.gpus_per_trial is None and not _has_gpu():
            raise UserError("--device cuda: no GPU here to measure what a trial needs; give --gpus-per-trial as well")

    def _check_cpus(self, count: int) -> None:
        if self.workers_per_trial * self.cpus_per_trial > count:
            raise UserError(
                f"--cpus-per-trial {self.cpus_per_trial:g}{self._times}: this machine has {count}; ask for at most that"
            )

    def _check_gpus(self, count: int) -> None:
        if self.device == "cuda" and not count:
            raise UserError(NO_GPU)
        if self.workers_per_trial * (self.gpus_per_trial or 0) > count:
            raise UserError(
                f"--gpus-per-trial {self.gpus_per_trial:g}{self._times}: this machine has {count}; ask for at most that"
            )
        if self.workers_per_trial > 1 and self.workers_per_trial * self.gpu_share > count:
            raise UserError(
                f"--workers-per-trial {self.workers_per_trial}: each takes a GPU, and this machine has {count}; "
                "ask for fewer, or for --gpus-per-trial below 1"
            )
        if self.device == "cpu" and self.gpus_per_trial:
            raise UserError(f"--gpus-per-trial {self.gpus_per_trial:g} with --device cpu; leave one of them out")

    @property
    def _times(self) -> str:
        """How many times a share is taken, for messages."""
        return f" --workers-per-trial {self.workers_per_trial}" if self.workers_per_trial > 1 else ""

    @property
    def torch_device(self) -> str:
        """The device that trials run on: `cpu` or `cuda`."""
        if self.device != "auto":
            return self.device
        gpu = _has_gpu() if self.gpus_per_trial is None else self.gpus_per_trial > 0
        return "cuda" if gpu else "cpu"

    @property
    def own_device(self) -> str:
        """The device of this process, which measures the dense model; trials on a cluster may have another."""
        return self.torch_device if _has_gpu() else "cpu"

    @property
    def gpu_share(self) -> float:
        """GPUs that a process of a trial takes: as the user said; `SHARE_UNMEASURED` until its need is measured.

        Where several train a trial, one, which needs no measuring.
        """
        if self.torch_device == "cpu":
            return 0.0
        if self.gpus_per_trial is not None:
            return self.gpus_per_trial
        return SHARE_UNMEASURED if self.workers_per_trial == 1 else 1.0

    @property
    def of_one_process(self) -> "Resources":
        """The same for work that one process does, with what one of a trial's takes."""
        if self.workers_per_trial == 1:
            return self
        return replace(self, workers_per_trial=1, gpus_per_trial=self.gpu_share)

    @property
    def threads(self) -> int:
        """Threads that PyTorch uses in a process of a trial."""
        return max(1, int(self.cpus_per_trial))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def pick_device(name: str) -> "torch.device":
    """Chooses the device for `auto`, `cpu` or `cuda`; a `UserError` for another name and for a GPU that is missing."""
    import torch

    gpu = _has_gpu()
    if name not in DEVICES:
        raise UserError(f"--device {describe_choice(name, DEVICES)}")
    if name == "cuda" and not gpu:
        raise UserError(NO_GPU)
    return torch.device("cuda" if gpu and name != "cpu" else "cpu")


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Lets PyTorch compute on so many cores, one as trials do by default: several add up in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
