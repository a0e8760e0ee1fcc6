"""Find out how far a neural network can be pruned, and how."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tune_prune.api import Front, prune, search

__version__ = "0.1.0"
__all__ = ["Front", "__version__", "prune", "search"]


def __getattr__(name: str) -> object:
    """`search`, `prune` and `Front`, imported when they are asked for: torch and Ray take seconds."""
    if name not in ("Front", "prune", "search"):
        raise AttributeError(f"module 'tune_prune' has no attribute {name!r}")
    from tune_prune import api

    return getattr(api, name)
