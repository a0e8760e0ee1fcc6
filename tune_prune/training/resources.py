"""The device and the threads that a network is trained with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tune_prune.common.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; a `UserError` for any other name and for a GPU that is not there."""
    there = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not there:
        raise UserError("--device cuda: this machine has no GPU that torch can use; use --device cpu or auto")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on one core, as trials do by default: more of them add up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
