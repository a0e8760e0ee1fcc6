"""Data sets of Hugging Face from folders, as the library writes them: texts, images, numbers, and what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from toys import fault
from transformers import PreTrainedTokenizerFast

from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.hugging_face_data import is_hugging_face_data
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import Split

WORDS = ["[PAD]", "[UNK]", "a", "b", "c"]


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., str]:
    """Writes parts of a data set, by name, and returns its address, with further arguments."""

    def store(parts: dict[str, dict[str, Any]], arguments: str = "", features: Any = None) -> str:
        made = {key: datasets.Dataset.from_dict(value, features) for key, value in parts.items()}
        datasets.DatasetDict(made).save_to_disk(tmp_path / "data")
        return f"datasets:load_from_disk(dataset_path={str(tmp_path / 'data')!r}{arguments})"

    return store


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """The arguments of a tokenizer of five words, in a folder."""
    words = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(tmp_path / "words")
    return f", tokenizer={str(tmp_path / 'words')!r}, max_length=4"


def texts(count: int) -> dict[str, Any]:
    return {
        "text": [["a b", "c", "b b b b b b"][at % 3] for at in range(count)],
        "label": [at % 2 for at in range(count)],
    }


def first(split: Any) -> Any:
    return next(split.batches(3))


def test_texts_become_token_ids(stored: Callable[..., str], tokenizer: str) -> None:
    data = load_data(stored({"train": texts(8), "validation": texts(4), "test": texts(6)}, tokenizer))
    assert isinstance(data.train, BatchSplit)
    assert (data.train.count, data.validation.count, data.load_test().count) == (8, 4, 6)
    batch = first(data.train)
    assert batch["input_ids"].tolist() == [[2, 3, 0, 0], [4, 0, 0, 0], [3, 3, 3, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1, 0]
    assert "text" not in batch


def test_columns_are_chosen(stored: Callable[..., str], tokenizer: str) -> None:
    part = {"one": ["a", "b"] * 5, "two": ["c", "c"] * 5, "kind": [1, 0] * 5}
    name = stored({"train": part, "dev": part, "test": part}, f"{tokenizer}, text=['two', 'one'], label='kind'")
    batch = first(load_data(name).validation)
    assert batch["input_ids"].tolist() == [[4, 2, 0, 0], [4, 3, 0, 0], [4, 2, 0, 0]]
    assert batch["labels"].tolist() == [1, 0, 1]


def test_what_is_missing_or_has_no_labels_is_held_out(stored: Callable[..., str], tokenizer: str) -> None:
    said = list[str]()
    unlabelled = texts(5) | {"label": [-1] * 5}
    data = load_data(stored({"train": texts(40), "test": unlabelled}, tokenizer), said.append)
    assert (data.train.count, data.validation.count, data.load_test().count) == (33, 3, 4)
    assert [line.rpartition(": ")[2] for line in said] == [
        "a tenth of the training samples is held out for test",
        "a tenth of the training samples is held out for validation",
    ]


def test_images_become_pairs_in_memory(stored: Callable[..., str]) -> None:
    images = [Image.fromarray(np.full((10, 8), at, np.uint8)) for at in range(10)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(2)})
    part = {"image": images, "label": [at % 2 for at in range(10)]}
    name = stored({"train": part, "validation": part, "test": part}, ", resize=6", features)
    split = load_data(name).train
    assert isinstance(split, Split)
    assert split.inputs.shape == (10, 1, 6, 6)
    assert split.inputs[:, 0, 0, 0].tolist() == list(range(10))
    assert split.labels.tolist() == part["label"]
    darker = load_data(name, settings=TaskSettings(transform=f"{__name__}:as_half")).train
    assert darker.inputs.shape == (10, 1, 10, 8)


def as_half(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image))[None] / 2


def test_numbers_stay_as_they_are(stored: Callable[..., str]) -> None:
    part = {"x": np.arange(20.0).reshape(10, 2), "labels": [1, 0] * 5}
    batch = first(load_data(stored({"train": part, "validation": part, "test": part})).train)
    assert batch["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert batch["labels"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("parts", "arguments", "said"),
    [
        ({"all": texts(4)}, "", "has no split train; it has all"),
        ({"train": texts(4)}, ", label='kind'", "has no column 'kind'; it has text, label"),
        ({"train": texts(40)}, "", "columns text are texts; give tokenizer=, a name or a folder"),
    ],
)
def test_what_cannot_be_read(stored: Callable[..., str], parts: Any, arguments: str, said: str) -> None:
    name = stored(parts, arguments)
    assert said in fault(lambda: load_data(name))


def test_a_missing_folder_is_named() -> None:
    assert "/nosuch" in fault(lambda: load_data("datasets:load_from_disk(dataset_path='/nosuch')"))


def test_a_module_of_the_users_may_have_the_librarys_name() -> None:
    assert is_hugging_face_data("datasets:load_dataset(path='imdb')")
    assert not is_hugging_face_data("datasets:images")
    assert not is_hugging_face_data("my.datasets:load_dataset")
