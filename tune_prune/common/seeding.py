"""Derives seeds from other seeds."""

import hashlib


def derive_seed(*parts: int) -> int:
    """Derives a seed in [0, 2**31) from several numbers; neighbouring numbers give unrelated seeds."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
