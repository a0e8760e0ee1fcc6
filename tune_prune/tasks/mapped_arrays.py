"""Arrays in files that are mapped into memory: which ones are, and how other processes map them, too."""

import mmap
from dataclasses import dataclass

import numpy as np
from torch import Tensor


def is_mapped(leaf: object) -> bool:
    """Whether an array or a tensor lies in a file that is mapped into memory, as those of `np.memmap` do."""
    if isinstance(leaf, Tensor):
        return leaf.device.type == "cpu" and leaf.untyped_storage().filename is not None
    while isinstance(leaf, np.ndarray):
        leaf = leaf.base
    return isinstance(leaf, mmap.mmap)


@dataclass(frozen=True)
class MappedArray:
    """Where an array lies in a file: its first byte, and how its elements follow each other from there."""

    path: str
    first: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def find(cls, array: np.memmap) -> "MappedArray | np.ndarray":
        """Finds the place of an array or of a view of one; where it has none in the file, returns a copy.

        It has none where it is not in the file, as one of mode "c" that was written to, or has negative strides.
        """
        root = array
        while isinstance(root.base, np.memmap):
            root = root.base
        is_file = isinstance(root.base, mmap.mmap) and root.filename is not None and root.mode != "c"
        if not is_file or min(array.strides, default=0) < 0:
            return np.array(array)
        # the map begins at a multiple of the granularity, before the root's own first byte
        first = root.offset + array.ctypes.data - root.ctypes.data
        return cls(str(root.filename), first, array.dtype, array.shape, array.strides)

    def open(self) -> np.ndarray:
        """Maps the array, read-only; raises an `OSError` where the file is missing, as on another machine."""
        last = sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        raw = np.memmap(self.path, np.uint8, "r", self.first, (last + self.dtype.itemsize,))
        return np.ndarray(self.shape, self.dtype, raw, strides=self.strides)


def open_array(found: MappedArray | np.ndarray) -> np.ndarray:
    """The array that `MappedArray.find` was given."""
    return found.open() if isinstance(found, MappedArray) else found
