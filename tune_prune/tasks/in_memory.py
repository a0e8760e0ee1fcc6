"""Registers models and data that a user hands over as objects, under addresses that hold while the process lives.

A model defined in a notebook has no file that a worker could import. It is kept here and sent to the workers with
`WorkerData`; everywhere else it is named by its address, as any other model is.
"""

import copy
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from tune_prune.common.entrypoints import parse_arguments
from tune_prune.common.errors import UserError
from tune_prune.tasks.models import detach_computed
from tune_prune.tasks.splits import Data

T = TypeVar("T")
Model = nn.Module | Callable[[], nn.Module]

_models: dict[str, Model] = {}
_data: dict[str, Data | tuple[object, object, object]] = {}


def keep_model(value: Model) -> str:
    """Keeps a module, which every call of `model` copies, or a function that makes one; returns its address.

    Raises a `UserError` for a module that cannot be sent to another process.
    """
    if isinstance(value, nn.Module):
        detach_computed(value)
        if any(is_parametrized(module) for module in value.modules()):
            what = "a model with a parametrized weight, as of weight_norm, cannot be sent to another process"
            raise UserError(f"{what}; hand over a function that makes the model, or name one by its address")
    key = _new_key()
    _models[key] = value
    return f"{__name__}:model(key={key!r})"


def keep_data(value: Data | tuple[object, object, object]) -> str:
    """Keeps a `Data`, or train, validation and test; returns their address."""
    key = _new_key()
    _data[key] = value
    return f"{__name__}:data(key={key!r})"


def model(key: str) -> nn.Module:
    """The factory at the address of a kept model: makes a copy of the module, or calls the function."""
    kept = _look_up(_models, key, "model")
    return copy.deepcopy(kept) if isinstance(kept, nn.Module) else kept()


def data(key: str) -> Data | tuple[object, object, object]:
    """The factory at the address of kept data: returns the splits."""
    return _look_up(_data, key, "data")


def find_models(name: str) -> dict[str, Model]:
    """Finds, by key, the kept models that a worker needs to build the model `name`: one where it is kept here, or none.

    The worker passes them to `keep_models`.
    """
    if not name.startswith(f"{__name__}:"):
        return {}
    key = str(parse_arguments(name)["key"])
    return {key: _look_up(_models, key, "model")}


def keep_models(models: Mapping[str, Model]) -> None:
    """Keeps models that another process has sent, by key."""
    _models.update(models)


def _new_key() -> str:
    """Makes a key that no other process has: a file that names an object of another process must not find one here."""
    return uuid.uuid4().hex[:12]


def _look_up(kept: Mapping[str, T], key: str, kind: str) -> T:
    if key not in kept:
        raise UserError(f"{kind} {key} was handed over as an object in another process; name it by an address instead")
    return kept[key]
