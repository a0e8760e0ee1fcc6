"""Data sets: train, validation and test, as tensors that stay in memory."""

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tune_prune.address import is_address, load
from tune_prune.errors import UserError
from tune_prune.registry import Registry

MNIST = Path(__file__).parent / "datasets" / "mnist"


class Split(NamedTuple):
    """Inputs, uint8 or float32 [n, ...], and labels, int64 [n]."""

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """The same split on a device; no copy where it is there already."""
        return Split(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A data set. The test split is a function, so that reading it is a deliberate act, done once at the end."""

    train: Split
    validation: Split
    load_test: Callable[[], Split]


datasets: Registry[Callable[[], Data]] = Registry("data set")


def as_float(inputs: Tensor) -> Tensor:
    """What a model is fed: bytes become float32 divided by 256, as torch7-pruner had it; floats pass unchanged."""
    return inputs.float().div_(256) if inputs.dtype == torch.uint8 else inputs


def _read_idx(path: Path) -> Tensor:
    """One gzipped IDX file of bytes (LeCun's format: two zeros, type 8, rank, then big-endian sizes)."""
    raw = gzip.decompress(path.read_bytes())
    zeros, kind, rank = struct.unpack_from(">HBB", raw)
    shape = struct.unpack_from(f">{rank}I", raw, 4)
    if zeros or kind != 8:
        raise UserError(f"{path}: not an IDX file of unsigned bytes")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=4 + 4 * rank).reshape(shape)


def _read_mnist(part: str) -> Split:
    images = _read_idx(MNIST / f"{part}-images-idx3-ubyte.gz")
    labels = _read_idx(MNIST / f"{part}-labels-idx1-ubyte.gz")
    return Split(images.unsqueeze(1), labels.long())


@datasets.register("mnist")
def mnist() -> Data:
    """MNIST (LeCun, Cortes, Burges), inside the package: 50,000 / 10,000 / 10,000 images, uint8 [n, 1, 28, 28]."""
    images, labels = _read_mnist("train")
    return Data(
        train=Split(images[:50_000], labels[:50_000]),
        validation=Split(images[50_000:], labels[50_000:]),
        load_test=lambda: _read_mnist("t10k"),
    )


def load_data(name: str) -> Data:
    """A data set from a built-in name or a `package.module:factory` address that returns a `Data`."""
    if not is_address(name):
        return datasets[name]()
    data = load(name)()
    if isinstance(data, Data):
        return data
    return _from_splits(name, data)


def _from_splits(name: str, splits: object) -> Data:
    """What a user's factory returns: train, validation and test, each a pair of tensors (inputs, labels)."""
    if not (isinstance(splits, tuple) and len(splits) == 3):
        raise UserError(f"data {name!r} must return (train, validation, test), each a pair (inputs, labels)")
    train, validation, test = (_checked(name, part) for part in splits)
    return Data(train, validation, lambda: test)


def _checked(name: str, part: object) -> Split:
    """A pair of tensors of equal, positive length as a Split."""
    match part:
        case (Tensor() as inputs, Tensor() as labels) if labels.dim() == 1 and inputs.shape[:1] == labels.shape != (0,):
            return Split(inputs if inputs.dtype == torch.uint8 else inputs.float(), labels.long())
    raise UserError(f"data {name!r}: every split must be a pair of tensors, inputs [n, ...] and labels [n], n > 0")
