"""An array in a file is found there by another process, whatever view of it is taken, and without its bytes."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune_prune.tasks.mapped_arrays import MappedArray, is_mapped, open_array

HEAD = mmap.ALLOCATIONGRANULARITY + 24
"""Bytes before the array, so that the map does not begin where the array does."""


@pytest.fixture
def rows(tmp_path: Path) -> np.memmap:
    """[50, 4, 6] of int32, each of another value."""
    (tmp_path / "rows").write_bytes(bytes(HEAD) + np.arange(1200, dtype=np.int32).tobytes())
    return np.memmap(tmp_path / "rows", np.int32, "r", HEAD, (50, 4, 6))


VIEWS = {
    "all": lambda rows: rows,
    "some rows": lambda rows: rows[7:30],
    "some rows of some rows": lambda rows: rows[7:30][3:5],
    "every third": lambda rows: rows[1::3],
    "a column": lambda rows: rows[:, 2],
    "transposed": lambda rows: rows.T,
    "one row": lambda rows: rows[49],
    "other shape": lambda rows: rows.reshape(100, 12)[50:],
    "other type": lambda rows: rows.view(np.int16)[..., 1::2],
    "the same row again": lambda rows: np.broadcast_to(rows[5], (9, 4, 6), subok=True),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_found_again(rows: np.memmap, view: str) -> None:
    part: Any = VIEWS[view](rows)
    assert isinstance(part, np.memmap)
    found = MappedArray.find(part)
    assert isinstance(found, MappedArray)
    again = found.open()
    assert (again.dtype, again.shape) == (part.dtype, part.shape)
    assert np.array_equal(again, part)
    assert not again.flags.writeable
    assert is_mapped(again)


def test_what_is_not_in_the_file_is_copied(rows: np.memmap) -> None:
    own = np.memmap(rows.filename, np.int32, "c", HEAD, (50, 4, 6))
    own[0] = -1
    for part in (own, own[3:], rows[::-1]):
        copied = MappedArray.find(part)
        assert type(copied) is np.ndarray
        assert np.array_equal(open_array(copied), part)


def test_a_missing_file_is_named(rows: np.memmap) -> None:
    found = MappedArray.find(rows)
    Path(str(rows.filename)).unlink()
    with pytest.raises(FileNotFoundError, match="rows"):
        open_array(found)


def test_only_arrays_in_files_are_mapped(rows: np.memmap) -> None:
    assert is_mapped(rows)
    assert is_mapped(np.asarray(rows)[2:])
    assert not is_mapped(np.array(rows))
    assert not is_mapped("rows")
