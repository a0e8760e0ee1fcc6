"""Loads data sets by name, as tensors in memory: MNIST from the package, torchvision's, and a user's own.

Names are `mnist`, `torchvision:CIFAR10(root='data')`, and `package.module:factory`.
"""

import gzip
import inspect
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tune_prune.common.entrypoints import call_factory, is_address, parse_arguments
from tune_prune.common.errors import UserError, format_names
from tune_prune.common.import_path import is_code_refused
from tune_prune.common.registry import Registry
from tune_prune.tasks import torchvision_allowlist
from tune_prune.tasks.augment import load_augment
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.models import byte_scale
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import DEFAULT, TaskSettings
from tune_prune.tasks.sources import Rows
from tune_prune.tasks.splits import AnySplit, Data, Split, check_split, hold_out, stack_pairs
from tune_prune.tasks.user_splits import make_data

MNIST = Path(__file__).parent / "mnist"
"""The folder with MNIST's files."""

TORCHVISION_ROOT = "data"
"""The folder where torchvision's data sets are looked for, and downloaded to, unless `root` is given."""

_TRAIN_AND_TEST: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "train": ({"train": True}, {"train": False}),
    "split": ({"split": "train"}, {"split": "test"}),
}
"""By the name of torchvision's parameter that selects a part: the arguments for training and for test images."""

datasets: Registry[Callable[[], Data]] = Registry("data set")


@datasets.register("mnist")
def mnist() -> Data:
    """MNIST (LeCun, Cortes, Burges), inside the package: 50,000 / 10,000 / 10,000 images, uint8 [n, 1, 28, 28]."""
    images, labels = _read_mnist("train")
    return Data(
        train=Split(images[:50_000], labels[:50_000]),
        validation=Split(images[50_000:], labels[50_000:]),
        load_test=lambda: _read_mnist("t10k"),
    )


def load_data(
    name: str,
    say: Callable[[str], None] = lambda line: None,
    settings: TaskSettings = DEFAULT,
    model: str = "",
) -> Data:
    """Loads a data set by a built-in name, `torchvision:<data set>`, or a `package.module:factory` address.

    A user's factory returns a `Data`, or train, validation and test. Its splits are of the task that `settings`
    describe, for the model called `model`. `say` gets a line for each split made here. Every split is checked
    (`check_split`), the test split when it is loaded, which happens once. Raises a `UserError`.
    """
    objective, augment = make_objective(settings), load_augment(settings.augment)
    if not is_address(name):
        data = datasets[name]()
    elif name.startswith("torchvision:"):
        data = load_torchvision(name, say)
    else:
        made = call_factory(name, "data")
        data = made if isinstance(made, Data) else make_data(name, made, objective, say)

    pairs = isinstance(data.train, Split) and isinstance(data.validation, Split)
    in_memory = pairs and settings.is_default_objective and augment is None

    def finish(part: str, split: AnySplit) -> AnySplit:
        if isinstance(split, Split) and in_memory:
            return replace(check_split(name, part, split), scale=byte_scale(model), objective=objective)
        source = Rows((split.inputs, split.labels)) if isinstance(split, Split) else split.source
        distort = augment if part == "training" else None
        return BatchSplit(source, objective, f"{name}, {part}", scale=byte_scale(model), augment=distort)

    @cache
    def load_test() -> AnySplit:
        return finish("test", data.load_test())

    return Data(finish("training", data.train), finish("validation", data.validation), load_test, name)


def load_torchvision(name: str, say: Callable[[str], None]) -> Data:
    """Loads the data set `torchvision:NAME(key=value)`; it is downloaded where it is missing, unless by `--no-code`.

    `resize` in the name makes all images squares of that side, cut at the centre. A tenth of the training images is
    held out for validation, and where the set has no test images of its own, as many for testing; `say` gets a line
    about it. Raises a `UserError` where the name or an argument is wrong or the images cannot be loaded.
    """
    from torchvision import datasets  # here, since the import takes half a second

    if is_code_refused():
        torchvision_allowlist.check_data(name)
    arguments = parse_arguments(name)
    resize = arguments.pop("resize", None)
    class_name = name.partition("(")[0].partition(":")[2]
    factory = getattr(datasets, class_name, None)
    if not (isinstance(factory, type) and issubclass(factory, datasets.VisionDataset)):
        classes = [key for key, value in vars(datasets).items() if isinstance(value, type)]
        raise UserError(f"data {name!r}: torchvision has no such data set; it has {format_names(sorted(classes))}")
    parameters = inspect.signature(factory).parameters
    defaults = {"root": TORCHVISION_ROOT, "download": not is_code_refused()}
    arguments = {key: value for key, value in defaults.items() if key in parameters} | arguments

    def load_part(**part: object) -> Split:
        return _load_split(name, factory, {**arguments, **part}, resize)

    selectors = [key for key in _TRAIN_AND_TEST if key in parameters and key not in arguments]
    if not selectors:
        rest, test = hold_out(load_part())
        train, validation = hold_out(rest, len(test.labels))
        say(f"{name}: a tenth of the images is held out for validation, and another for testing")
        return Data(train, validation, lambda: test)
    train_arguments, test_arguments = _TRAIN_AND_TEST[selectors[0]]
    train, validation = hold_out(load_part(**train_arguments))
    say(f"{name}: a tenth of the training images is held out for validation")
    return Data(train, validation, lambda: load_part(**test_arguments))


def _read_mnist(part: str) -> Split:
    images = _read_idx(MNIST / f"{part}-images-idx3-ubyte.gz")
    labels = _read_idx(MNIST / f"{part}-labels-idx1-ubyte.gz")
    return Split(images.unsqueeze(1), labels.long())


def _read_idx(path: Path) -> Tensor:
    """Reads a gzipped IDX file of bytes (LeCun's format: two zeros, type 8, rank, then big-endian sizes)."""
    raw = gzip.decompress(path.read_bytes())
    zeros, kind, rank = struct.unpack_from(">HBB", raw)
    shape = struct.unpack_from(f">{rank}I", raw, 4)
    if zeros or kind != 8:
        raise UserError(f"{path}: not an IDX file of unsigned bytes")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=4 + 4 * rank).reshape(shape)


def _load_split(name: str, factory: Callable[..., Any], arguments: dict[str, object], resize: object) -> Split:
    from torchvision import transforms

    steps = [transforms.Resize(resize), transforms.CenterCrop(resize)] if isinstance(resize, int) else []
    try:
        pairs = factory(transform=transforms.Compose([*steps, transforms.PILToTensor()]), **arguments)
        return stack_pairs(pairs)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        where = f"; it is looked for in {arguments['root']!r}" if "root" in arguments else ""
        raise UserError(f"data {name!r}: cannot be loaded ({type(error).__name__}: {error}){where}") from error
