"""Models and data that are handed over as objects, under addresses that find them again while the process lives.

A model in a notebook has no file that a worker could import. It is kept here, and goes to the workers with what they
share (`Shared`); everywhere else it is named as any model is, by an address.
"""

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from tune_prune.common.entrypoints import parse_arguments
from tune_prune.common.errors import UserError
from tune_prune.tasks.splits import Data

Kept = TypeVar("Kept")
Model = nn.Module | Callable[[], nn.Module]

_models: dict[str, Model] = {}
_data: dict[str, Data | tuple[object, object, object]] = {}


def keep_model(value: Model) -> str:
    """The address of a module, of which every call makes a copy, or of a function that makes one."""
    key = str(len(_models))
    _models[key] = value
    return f"{__name__}:model(key={key!r})"


def keep_data(value: Data | tuple[object, object, object]) -> str:
    """The address of train, validation and test."""
    key = str(len(_data))
    _data[key] = value
    return f"{__name__}:data(key={key!r})"


def model(key: str) -> nn.Module:
    """The module that was kept; what its address calls."""
    found = _found(_models, key, "model")
    return copy.deepcopy(found) if isinstance(found, nn.Module) else found()


def data(key: str) -> Data | tuple[object, object, object]:
    """The splits that were kept; what their address calls."""
    return _found(_data, key, "data")


def _found(kept: Mapping[str, Kept], key: str, what: str) -> Kept:
    if key not in kept:
        raise UserError(f"{what} {key} was handed over as an object in another process; name it by an address instead")
    return kept[key]


def models_behind(name: str) -> dict[str, Model]:
    """What a worker needs to build the model of this name: nothing, unless it was kept here."""
    if not name.startswith(f"{__name__}:"):
        return {}
    key = str(parse_arguments(name)["key"])
    return {key: _found(_models, key, "model")}


def keep_models(models: Mapping[str, Model]) -> None:
    """Keep what another process has sent."""
    _models.update(models)
