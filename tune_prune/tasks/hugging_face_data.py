"""Data sets of Hugging Face by address: `datasets:load_dataset(path='imdb', tokenizer='bert-base-uncased')`.

Texts become token ids, images tensors; anything else stays as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from tune_prune.common.entrypoints import parse_arguments
from tune_prune.common.errors import UserError, format_names
from tune_prune.tasks.caching import MEMORY_LIMIT
from tune_prune.tasks.splits import draw_held_out
from tune_prune.tasks.transforms import Transform, make_image_transform
from tune_prune.tasks.user_code import user_code

FUNCTIONS = ("load_dataset", "load_from_disk")
"""The functions of the package `datasets` that are called with the arguments that are not listed here."""

_NAMES = {
    "training": ("train",),
    "validation": ("validation", "val", "valid", "dev", "eval"),
    "test": ("test",),
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Columns:
    """What of a data set's columns is taken, and how: the arguments that `load_hugging_face` has of its own."""

    tokenizer: str | None = None
    text: str | Sequence[str] | None = None
    label: str | None = None
    max_length: int | None = None
    resize: int | None = None


def is_hugging_face_data(name: str) -> bool:
    """Whether a name is `datasets:` with one of its functions; a user's module may have the same name."""
    module, _, function = name.partition("(")[0].partition(":")
    return module == "datasets" and function in FUNCTIONS


def load_hugging_face(name: str, say: Say, transform: Transform | None) -> tuple[Any, Any, Any]:
    """Loads train, validation and test of `datasets:FUNCTION(key=value)`.

    Besides FUNCTION's own, arguments are `tokenizer`, a name or a folder, with `text`, the column or columns that it
    takes (all of texts), and `max_length` (128); `label`, the column of targets ("label" or "labels"); and `resize`,
    the side of images. A tenth of the training samples is held out for validation or testing where that is missing, or
    has no labels; `say` gets a line. Raises a `UserError`.
    """
    import datasets  # here, since the import takes seconds

    arguments = parse_arguments(name)
    given = {one.name: arguments.pop(one.name) for one in fields(Columns) if one.name in arguments}
    own = Columns(**given)  # type: ignore[arg-type]
    function = name.partition("(")[0].partition(":")[2]
    with user_code("data", name), _without_progress_bars(datasets):
        loaded = getattr(datasets, function)(**arguments)
        parts = _find_parts(name, loaded if isinstance(loaded, dict) else {"train": loaded}, own.label)
        for part in ("test", "validation"):
            if part not in parts:
                rest, held = draw_held_out(len(parts["training"]))
                parts[part] = parts["training"].select(held.tolist())
                parts["training"] = parts["training"].select(rest.tolist())
                say(f"{name}: a tenth of the training samples is held out for {part}")
        made = {part: _prepare(name, dataset, own, transform) for part, dataset in parts.items()}
    return made["training"], made["validation"], made["test"]


def _find_parts(name: str, loaded: dict[str, Any], label: object) -> dict[str, Any]:
    """The parts of a data set by their names here, each with its targets as `labels`."""
    found = {part: loaded[key] for part, names in _NAMES.items() for key in names if key in loaded}
    if "training" not in found:
        raise UserError(f"data {name!r} has no split train; it has {format_names(loaded)}")
    columns = found["training"].column_names
    target = str(label) if label is not None else next((key for key in ("labels", "label") if key in columns), None)
    if target is not None and target not in columns:
        raise UserError(f"data {name!r} has no column {target!r}; it has {format_names(columns)}")
    if target not in (None, "labels"):
        found = {part: dataset.rename_column(target, "labels") for part, dataset in found.items()}
    # the test split of a benchmark may have -1 for all labels
    return {part: each for part, each in found.items() if target is None or set(each["labels"][:64]) != {-1}}


def _prepare(name: str, dataset: Any, own: Columns, transform: Transform | None) -> Any:
    """A mapping of tensors where those fit into memory, else a data set of samples."""
    import datasets

    kinds = dataset.features
    images = [key for key, kind in kinds.items() if isinstance(kind, datasets.Image)]
    if images:
        return Images(dataset, images[0], transform or make_image_transform(own.resize))
    texts = [key for key, kind in kinds.items() if getattr(kind, "dtype", "") in ("string", "large_string")]
    if own.tokenizer is not None:
        dataset = _tokenize(dataset, own, texts)
    elif texts:
        raise UserError(f"data {name!r}: columns {format_names(texts)} are texts; give tokenizer=, a name or a folder")
    dataset = dataset.with_format("torch")
    size = dataset.data.nbytes
    return dict(dataset[:]) if size <= MEMORY_LIMIT else dataset


def _tokenize(dataset: Any, own: Columns, texts: list[str]) -> Any:
    """Replaces the columns of texts by those that a tokenizer makes of them, all of one length."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(own.tokenizer)
    chosen = [own.text] if isinstance(own.text, str) else list(own.text or texts)
    length = own.max_length or 128

    def tokenize(rows: dict[str, list[str]]) -> Any:
        return tokenizer(*(rows[key] for key in chosen), padding="max_length", truncation=True, max_length=length)

    others = [key for key in dataset.column_names if key != "labels"]
    return dataset.map(tokenize, batched=True, remove_columns=others)


class Images(Dataset[tuple[Tensor, Any]]):
    """Images and labels of a data set of Hugging Face, each image transformed when it is read."""

    def __init__(self, dataset: Any, column: str, transform: Transform) -> None:
        self.dataset, self.column, self.transform = dataset, column, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """An image, as the transform makes it of one in RGB or in gray, and its label."""
        row = self.dataset[index]
        image = row[self.column]
        return self.transform(image if image.mode in ("L", "RGB") else image.convert("RGB")), row["labels"]


@contextmanager
def _without_progress_bars(datasets: Any) -> Iterator[None]:
    """Keeps the library from drawing bars where a search shows its own progress."""
    were_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_shown:
            datasets.enable_progress_bars()
