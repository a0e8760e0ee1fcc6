"""Searches for the smallest version of a neural network within an accuracy budget."""

# nothing is imported here: with `python -m tune_prune`, files of the working directory would still be found first
TYPE_CHECKING = False
if TYPE_CHECKING:
    from tune_prune.api import prune, search
    from tune_prune.common.errors import HeldError, UserError
    from tune_prune.distributed.searcher import StudySearcher
    from tune_prune.distributed.trainable import PruneTrainable
    from tune_prune.distributed.tuner import SearchStopper
    from tune_prune.export.formats import load
    from tune_prune.pruning.layers import register
    from tune_prune.pruning.own_loop import apply_masks, masks, save
    from tune_prune.results.saved_front import Front, Pruned
    from tune_prune.workflows.own_tuner import PreparedSearch, prepare_search


__version__ = "0.1.0"
__all__ = [
    "Front",
    "HeldError",
    "PreparedSearch",
    "PruneTrainable",
    "Pruned",
    "SearchStopper",
    "StudySearcher",
    "UserError",
    "__version__",
    "apply_masks",
    "load",
    "masks",
    "prepare_search",
    "prune",
    "register",
    "save",
    "search",
]

_FROM = {
    "Front": "results.saved_front",
    "Pruned": "results.saved_front",
    "HeldError": "common.errors",
    "UserError": "common.errors",
    "PruneTrainable": "distributed.trainable",
    "StudySearcher": "distributed.searcher",
    "SearchStopper": "distributed.tuner",
    "PreparedSearch": "workflows.own_tuner",
    "prepare_search": "workflows.own_tuner",
    "prune": "api",
    "search": "api",
    "load": "export.formats",
    "register": "pruning.layers",
    "apply_masks": "pruning.own_loop",
    "masks": "pruning.own_loop",
    "save": "pruning.own_loop",
}


def __getattr__(name: str) -> object:
    """What is handed on from other modules, imported when it is asked for: torch and Ray take seconds."""
    if name not in _FROM:
        raise AttributeError(f"module 'tune_prune' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tune_prune.{_FROM[name]}"), name)
