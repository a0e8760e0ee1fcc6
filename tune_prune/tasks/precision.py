"""The precision of a computation: float32, TF32 products, or bfloat16 by automatic mixed precision."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def use_precision(name: str | None, device: torch.device) -> AbstractContextManager[object]:
    """Computes in a precision inside a block: None and `fp32` change nothing.

    With `tf32`, float32 products on a GPU are rounded to ten bits of fraction. With `bf16`, `torch.autocast` runs
    products in bfloat16, on either kind of device; weights stay float32.
    """
    if name == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return _tf32() if name == "tf32" else nullcontext()


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
