"""Data sets by name: the one in the package, torchvision's, and a user's own.

torchvision's data sets, `torchvision:CIFAR10(root='data')`, as tensors in memory.
"""

import gzip
import inspect
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tune_prune.common.entrypoints import call_factory, is_address, parse_arguments
from tune_prune.common.errors import UserError, format_names
from tune_prune.common.registry import Registry
from tune_prune.tasks.splits import Data, Split, hold_out, stack_pairs

MNIST = Path(__file__).parent / "mnist"


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
        return load_torchvision(name, say)
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
            part = tuple(stack_pairs(part))
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"data {name!r}: a data set must hold pairs (input, label) of equal shapes ({error})"
            ) from error
    match part:
        case (Tensor() as inputs, Tensor() as labels) if labels.dim() == 1 and inputs.shape[:1] == labels.shape != (0,):
            return Split(inputs if inputs.dtype == torch.uint8 else inputs.float(), labels.long())
    raise UserError(f"data {name!r}: every split must be a pair of tensors, inputs [n, ...] and labels [n], n > 0")


TORCHVISION_ROOT = "data"
"""Where data sets are looked for, and downloaded to, unless `root` is given."""


def load_torchvision(name: str, say: Callable[[str], None]) -> Data:
    """The data set at `torchvision:NAME(key=value)`; `resize` makes all images squares of that side, cut at the centre.

    A tenth of the training images is held out for validation, and where the set has no test images of its own, as many
    for testing: `say` is told. It is downloaded where it is not there. A `UserError` says what is wrong.
    """
    from torchvision import datasets  # when it is asked for: it takes half a second

    arguments = parse_arguments(name)
    resize = arguments.pop("resize", None)
    kind = name.partition("(")[0].partition(":")[2]
    make = getattr(datasets, kind, None)
    if not (isinstance(make, type) and issubclass(make, datasets.VisionDataset)):
        there = [key for key, value in vars(datasets).items() if isinstance(value, type)]
        raise UserError(f"data {name!r}: torchvision has no such data set; it has {format_names(sorted(there))}")
    takes = inspect.signature(make).parameters
    given = {key: value for key, value in (("root", TORCHVISION_ROOT), ("download", True)) if key in takes} | arguments

    def part(**which: object) -> Split:
        return _load_split(name, make, {**given, **which}, resize)

    own = next((parts for key, parts in OWN_TEST.items() if key in takes and key not in arguments), None)
    if own is None:
        rest, test = hold_out(part())
        train, validation = hold_out(rest, len(test.labels))
        say(f"{name}: a tenth of the images is held out for validation, and another for testing")
        return Data(train, validation, lambda: test)
    train, validation = hold_out(part(**own[0]))
    say(f"{name}: a tenth of the training images is held out for validation")
    return Data(train, validation, lambda: part(**own[1]))


OWN_TEST: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "train": ({"train": True}, {"train": False}),
    "split": ({"split": "train"}, {"split": "test"}),
}
"""How data sets with test images of their own are asked for either."""


def _load_split(name: str, make: Callable[..., Any], arguments: dict[str, object], resize: object) -> Split:
    from torchvision import transforms

    steps = [transforms.Resize(resize), transforms.CenterCrop(resize)] if isinstance(resize, int) else []
    try:
        found = make(transform=transforms.Compose([*steps, transforms.PILToTensor()]), **arguments)
        return stack_pairs(found)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        where = f"; it is looked for in {arguments['root']!r}" if "root" in arguments else ""
        raise UserError(f"data {name!r}: cannot be loaded ({type(error).__name__}: {error}){where}") from error
