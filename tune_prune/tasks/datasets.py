"""Loads data sets by name, as tensors in memory: MNIST from the package, torchvision's, and a user's own.

Names are `mnist`, `torchvision:CIFAR10(root='data')`, `datasets:load_dataset(path='imdb')`, and
`package.module:factory`.
"""

import gzip
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tune_prune.common.entrypoints import FACTORY, call_factory, is_address, load, refuse_code
from tune_prune.common.errors import UserError
from tune_prune.common.registry import Registry
from tune_prune.common.source_lines import find_definition
from tune_prune.tasks import in_memory
from tune_prune.tasks.augment import load_augment
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.hugging_face_data import is_hugging_face_data, load_hugging_face
from tune_prune.tasks.library_names import list_library_data
from tune_prune.tasks.models import byte_scale
from tune_prune.tasks.objective import Objective, make_objective
from tune_prune.tasks.settings import DEFAULT, TaskSettings
from tune_prune.tasks.sources import Rows
from tune_prune.tasks.splits import AnySplit, Data, Split, check_split
from tune_prune.tasks.torchvision_data import load_torchvision
from tune_prune.tasks.transforms import load_transform
from tune_prune.tasks.user_splits import make_data

MNIST = Path(__file__).parent / "mnist"
"""The folder with MNIST's files."""

datasets: Registry[Callable[[], Data]] = Registry("data set", list_library_data, FACTORY)


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
    """Loads a data set by a built-in name, an address, or the name of one of torchvision's or Hugging Face's.

    A user's factory returns a `Data`, or train, validation and test. Its splits are of the task that `settings`
    describe, for the model called `model`. `say` gets a line for each split made here. Every split is checked
    (`check_split`), the test split when it is loaded, which happens once. Raises a `UserError`.
    """
    objective, augment = make_objective(settings), load_augment(settings.augment)
    if settings.transform is not None and not (name.startswith("torchvision:") or is_hugging_face_data(name)):
        raise UserError(f"data {name!r}: transform is for torchvision's data; make the inputs where the data is made")
    if not is_address(name):
        data = datasets[name]()
    elif name.startswith("torchvision:"):
        data = load_torchvision(name, objective, say, load_transform(settings.transform, model))
    elif is_hugging_face_data(name):
        refuse_code(name)
        splits = load_hugging_face(name, say, load_transform(settings.transform, model))
        data = make_data(name, splits, objective, say)
    else:
        data = _load_own(name, objective, say)
        name = in_memory.describe(name)

    pairs = isinstance(data.train, Split) and isinstance(data.validation, Split)
    in_tensors = pairs and settings.is_default_objective and augment is None

    def finish(part: str, split: AnySplit) -> AnySplit:
        if isinstance(split, Split) and in_tensors:
            return replace(check_split(name, part, split), scale=byte_scale(model), objective=objective)
        source = Rows((split.inputs, split.labels)) if isinstance(split, Split) else split.source
        distort = augment if part == "training" else None
        return BatchSplit(source, objective, f"{name}, {part}", scale=byte_scale(model), augment=distort)

    @cache
    def load_test() -> AnySplit:
        return finish("test", data.load_test())

    return Data(finish("training", data.train), finish("validation", data.validation), load_test, name)


def _load_own(name: str, objective: Objective, say: Callable[[str], None]) -> Data:
    """Loads what a user's factory makes; a `UserError` names the factory's file and line, too."""
    made = call_factory(name, "data")
    if isinstance(made, Data):
        return made
    try:
        return make_data(in_memory.describe(name), made, objective, say)
    except UserError as error:
        place = "" if in_memory.find(name) else find_definition(load(name))
        if not place:
            raise
        raise UserError(f"{error}; it comes from {place}") from error


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
