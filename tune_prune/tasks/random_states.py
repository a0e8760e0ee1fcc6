"""Global random generators, seeded for a block or for the readers of data: a user's data set may draw from any."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_generators(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds the generators that data sets draw from, torch's, NumPy's and Python's, and puts them back at the end.

    That of a GPU is among them where it is the `device`.
    """
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
            seed_generators(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def seed_generators(seed: int) -> None:
    """Seeds torch's, NumPy's and Python's own generators."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class RandomStates:
    """Global generators of Python, NumPy, and torch on the CPU, that begin with a seed.

    They are in use in the blocks of `active` alone, one after the other; outside, the caller's go on undisturbed.
    """

    def __init__(self, seed: int) -> None:
        self._python = random.Random(seed).getstate()
        self._numpy: np.random.BitGenerator = np.random.MT19937(seed % 2**32)
        self._torch = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Puts these generators in the place of the caller's."""
        python, outside = random.getstate(), torch.get_rng_state()
        # NumPy's generator by reference, since its state takes long to copy
        numpy = np.random.get_bit_generator()  # type: ignore[attr-defined]
        random.setstate(self._python)
        np.random.set_bit_generator(self._numpy)  # type: ignore[attr-defined]
        torch.set_rng_state(self._torch)
        try:
            yield
        finally:
            self._python = random.getstate()
            random.setstate(python)
            np.random.set_bit_generator(numpy)  # type: ignore[attr-defined]
            self._torch = torch.get_rng_state()
            torch.set_rng_state(outside)
