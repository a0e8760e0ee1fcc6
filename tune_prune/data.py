"""Data sets by name: the one in the package, torchvision's, and a user's own."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tune_prune import vision
from tune_prune.common.entrypoints import call_factory, is_address
from tune_prune.common.errors import UserError
from tune_prune.common.registry import Registry
from tune_prune.splits import Data, Split, stacked

MNIST = Path(__file__).parent / "datasets" / "mnist"


datasets: Registry[Callable[[], Data]] = Registry("data set")


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


def load_data(name: str, say: Callable[[str], None] = lambda line: None) -> Data:
    """A data set from a built-in name, `torchvision:<data set>`, or a `package.module:factory` address.

    What a user's factory returns is a `Data`, or train, validation and test. `say` is told where a split is made here.
    """
    if not is_address(name):
        return datasets[name]()
    if name.startswith("torchvision:"):
        return vision.load(name, say)
    data = call_factory(name, "data")
    if isinstance(data, Data):
        return data
    return _from_splits(name, data)


def _from_splits(name: str, splits: object) -> Data:
    """What a user's factory returns: train, validation and test, pairs of tensors or data sets of pairs."""
    if not (isinstance(splits, tuple) and len(splits) == 3):
        raise UserError(f"data {name!r} must return (train, validation, test), each a pair (inputs, labels)")
    train, validation, test = (_checked(name, part) for part in splits)
    return Data(train, validation, lambda: test)


def _checked(name: str, part: object) -> Split:
    """A pair of tensors of equal, positive length, or a data set of such pairs, as a Split."""
    if hasattr(part, "__getitem__") and hasattr(part, "__len__") and not isinstance(part, tuple | Tensor):
        try:
            part = tuple(stacked(part))
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"data {name!r}: a data set must hold pairs (input, label) of equal shapes ({error})"
            ) from error
    match part:
        case (Tensor() as inputs, Tensor() as labels) if labels.dim() == 1 and inputs.shape[:1] == labels.shape != (0,):
            return Split(inputs if inputs.dtype == torch.uint8 else inputs.float(), labels.long())
    raise UserError(f"data {name!r}: every split must be a pair of tensors, inputs [n, ...] and labels [n], n > 0")
