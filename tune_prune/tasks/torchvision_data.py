"""Loads torchvision's data sets by name, folders of images among them, and holds out what has no split of its own.

Images are kept in memory where they are the same in every reading and fit there; others are read anew.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from tune_prune.common.entrypoints import parse_arguments
from tune_prune.common.errors import UserError, describe_error, format_names
from tune_prune.common.import_path import is_code_refused
from tune_prune.tasks import torchvision_allowlist
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.caching import MEMORY_LIMIT, PROCESS_LIMIT, keep_in_memory
from tune_prune.tasks.objective import Objective
from tune_prune.tasks.sources import Items
from tune_prune.tasks.splits import AnySplit, Data, Split, draw_held_out, hold_out
from tune_prune.tasks.transforms import Transform, make_image_transform

ROOT = "data"
"""The folder where torchvision's data sets are looked for, and downloaded to, unless `root` is given."""

_TRAIN_AND_TEST: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "train": ({"train": True}, {"train": False}),
    "split": ({"split": "train"}, {"split": "test"}),
}
"""By the name of torchvision's parameter that selects a part: the arguments for training and for test images."""

_VALIDATION_FOLDERS = ("val", "valid", "validation")


@dataclass(frozen=True)
class ImageReader:
    """Makes splits of a torchvision data set: its name for messages, its class, arguments, and transform."""

    name: str
    factory: Callable[..., Any]
    arguments: dict[str, object]
    transform: Transform
    objective: Objective
    say: Callable[[str], None]

    def open(self, **more: object) -> Any:
        """Makes the data set, with further arguments; a `UserError` where that fails."""
        return self._try(lambda: self.factory(transform=self.transform, **{**self.arguments, **more}))

    def read(self, part: str, dataset: Any, limit: int = MEMORY_LIMIT) -> AnySplit:
        """Makes a split: in memory, where that may be and takes at most `limit` bytes."""
        if not len(dataset):
            raise UserError(f"data {self.name!r}: there are no {part} images")
        kept: Split | None = self._try(lambda: keep_in_memory(self.name, part, dataset, self.say, limit, IMAGE_ADVICE))
        return kept or BatchSplit(Items(dataset), self.objective, f"{self.name}, {part}")

    def _try(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            where = f"; it is looked for in {self.arguments['root']!r}" if "root" in self.arguments else ""
            raise UserError(f"data {self.name!r}: cannot be loaded ({describe_error(error)}){where}") from error


IMAGE_ADVICE = "; give a side, as resize=64 in its name, or a transform that makes images of one size"


def load_torchvision(
    name: str, objective: Objective, say: Callable[[str], None], transform: Transform | None = None
) -> Data:
    """Loads the data set `torchvision:NAME(key=value)`; it is downloaded where it is missing, unless by `--no-code`.

    `resize` in the name makes all images squares of that side, cut at the centre; `transform` takes the images as they
    are. A tenth of the training images is held out for validation, and where the set has no test images of its own, as
    many for testing; `say` gets a line about it. Of an `ImageFolder` with the folders `train` and `val` or `test`,
    these are the splits. Raises a `UserError` where the name or an argument is wrong or the images cannot be loaded.
    """
    from torchvision import datasets  # here, since the import takes half a second

    if is_code_refused():
        torchvision_allowlist.check_data(name)
    arguments = parse_arguments(name)
    resize = arguments.pop("resize", None)
    if transform is not None and resize is not None:
        raise UserError(f"data {name!r}: resize and a transform; leave resize out, and let the transform resize")
    class_name = name.partition("(")[0].partition(":")[2]
    factory = getattr(datasets, class_name, None)
    if not (isinstance(factory, type) and issubclass(factory, datasets.VisionDataset)):
        classes = [key for key, value in vars(datasets).items() if isinstance(value, type)]
        raise UserError(f"data {name!r}: torchvision has no such data set; it has {format_names(sorted(classes))}")
    parameters = inspect.signature(factory).parameters
    defaults = {"root": ROOT, "download": not is_code_refused()}
    arguments = {key: value for key, value in defaults.items() if key in parameters} | arguments
    reader = ImageReader(name, factory, arguments, transform or make_image_transform(resize), objective, say)

    folders = find_folders(Path(str(arguments["root"]))) if class_name == "ImageFolder" else {}
    if folders:
        return _load_folders(reader, folders)
    selectors = [key for key in _TRAIN_AND_TEST if key in parameters and key not in arguments]
    if not selectors:
        rest, test = _hold_out(reader.read("all", reader.open()))
        train, validation = _hold_out(rest, test.count)
        say(f"{name}: a tenth of the images is held out for validation, and another for testing")
        return Data(train, validation, lambda: test)
    train_arguments, test_arguments = _TRAIN_AND_TEST[selectors[0]]
    train, validation = _hold_out(reader.read("training", reader.open(**train_arguments)))
    say(f"{name}: a tenth of the training images is held out for validation")
    return Data(train, validation, lambda: reader.read("test", reader.open(**test_arguments)))


def find_folders(root: Path) -> dict[str, Path]:
    """The folders of images for "training", "validation" and "test" in a folder; none where its folders are classes.

    They are `train`, one of `val`, `valid` and `validation`, and `test`, of which `train` and another must be there.
    """
    names = {"training": ("train",), "validation": _VALIDATION_FOLDERS, "test": ("test",)}
    found = {part: root / name for part, choices in names.items() for name in choices if (root / name).is_dir()}
    return found if "training" in found and len(found) > 1 else {}


def _load_folders(reader: ImageReader, folders: dict[str, Path]) -> Data:
    """Makes splits of folders; of the training images a tenth is held out for each that is missing."""
    datasets = {part: reader.open(root=str(folder)) for part, folder in folders.items()}
    classes = datasets["training"].classes
    for part, dataset in datasets.items():
        if dataset.classes != classes:
            found = f"{folders[part]} has the classes {format_names(dataset.classes)}"
            raise UserError(f"data {reader.name!r}: {found}, and {folders['training']} {format_names(classes)}")
    train = reader.read("training", datasets["training"])
    limit = MEMORY_LIMIT if isinstance(train, Split) else PROCESS_LIMIT
    held = dict[str, AnySplit]()
    for part in ("test", "validation"):
        if part not in datasets:
            train, held[part] = _hold_out(train, held["test"].count if held else None)
            reader.say(f"{reader.name}: a tenth of the training images is held out as {part} images")
    if "validation" not in held:
        held["validation"] = reader.read("validation", datasets["validation"], limit)
    return Data(train, held["validation"], lambda: held.get("test") or reader.read("test", datasets["test"], limit))


def _hold_out(split: AnySplit, count: int | None = None) -> tuple[AnySplit, AnySplit]:
    """Splits as `hold_out`; of a data set by its indices."""
    if isinstance(split, Split):
        return hold_out(split, count)
    assert isinstance(split.source, Items)
    dataset = split.source.dataset
    rest, held = (Items(Subset(dataset, index.tolist())) for index in draw_held_out(split.count, count))
    return replace(split, source=rest), replace(split, source=held)
