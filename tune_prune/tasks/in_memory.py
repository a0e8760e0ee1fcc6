"""Registers models, data and functions that come as objects, under addresses that hold while the process lives.

A model defined in a notebook has no file that a worker could import. It is kept here and sent to the workers with
`WorkerData`; everywhere else it is named by its address, as any other model is. Files that people read call it by the
name of its class (`entrypoints.describe_address`).
"""

import copy
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from tune_prune.common.entrypoints import load, parse_arguments
from tune_prune.common.errors import UserError
from tune_prune.tasks.models import detach_computed

Model = nn.Module | Callable[[], nn.Module]

_kept: dict[str, Any] = {}


def keep_model(value: Model) -> str:
    """Keeps a module, which every call of `model` copies, or a function that makes one; returns its address.

    Raises a `UserError` for a module that cannot be sent to another process.
    """
    _check_sendable(value)
    return _keep("model", value, _name(value))


def keep_data(value: object) -> str:
    """Keeps a `Data`, or train, validation and test; returns their address."""
    return _keep("data", value, "data")


def keep_function(value: Callable[..., Any]) -> str:
    """Keeps a function or a class; returns its address."""
    return _keep("function", value, _name(value))


def keep_again(address: str, value: object) -> None:
    """Keeps an object under an address that another process has given it; raises as `keep_model` does."""
    _check_sendable(value)
    _kept[str(parse_arguments(address)["key"])] = value


def model(key: str, name: str = "model") -> nn.Module:
    """The factory at the address of a kept model: makes a copy of the module, or calls the function."""
    kept = _look_up(key, f"model {name}")
    made: nn.Module = copy.deepcopy(kept) if isinstance(kept, nn.Module) else kept()
    return made


def data(key: str, name: str = "data") -> Any:
    """The factory at the address of kept data: returns the splits."""
    return _look_up(key, "data")


def function(*arguments: Any, key: str, name: str = "function") -> Any:
    """Calls a kept function."""
    return _look_up(key, f"function {name}")(*arguments)


def load_function(address: str) -> Callable[..., Any]:
    """Imports the function or class at an address, with the address's arguments bound to it; a kept one as it is."""
    if address.startswith(f"{__name__}:function"):
        found: Callable[..., Any] = _look_up(str(parse_arguments(address)["key"]), "function")
        return found
    return load(address)


@cache  # every step of a training asks for the name of its loss
def describe(address: str) -> str:
    """What messages call the object at an address: the name of a kept one, else the address."""
    for kept in find(address).values():
        if address.startswith(f"{__name__}:data"):
            return "from Python"
        name = getattr(kept, "__qualname__", None) or type(kept).__name__
        return f"{getattr(kept, '__module__', '')}:{name}"
    return address


def find(*addresses: str | None) -> dict[str, Any]:
    """Finds, by key, the kept objects among these addresses. A worker that needs them passes them to `keep_all`."""
    keys = [
        str(parse_arguments(address)["key"]) for address in addresses if address and address.startswith(f"{__name__}:")
    ]
    return {key: _look_up(key, "object") for key in keys}


def is_kept(address: str) -> bool:
    """Whether this process has the object at the address of one that was handed over."""
    return str(parse_arguments(address)["key"]) in _kept


def keep_all(objects: Mapping[str, Any]) -> None:
    """Keeps objects that another process has sent, by key."""
    _kept.update(objects)


def _name(value: object) -> str:
    """The name of a function or a class, or of an object's class."""
    return getattr(value, "__name__", None) or type(value).__name__


def _check_sendable(value: object) -> None:
    if isinstance(value, nn.Module):
        detach_computed(value)
        if any(is_parametrized(module) for module in value.modules()):
            what = "a model with a parametrized weight, as of weight_norm, cannot be sent to another process"
            raise UserError(f"{what}; hand over a function that makes the model, or name one by its address")


def _keep(kind: str, value: object, name: str) -> str:
    # a key that no other process has: a file that names an object of another process must not find one here
    key = uuid.uuid4().hex[:12]
    _kept[key] = value
    return f"{__name__}:{kind}(key={key!r}, name={name!r})"


def _look_up(key: str, what: str) -> Any:
    if key not in _kept:
        advice = "hand it over again" if not what.startswith("model") else "front.best.load_into(model) needs none"
        raise UserError(f"{what} was handed over as an object in another process, and has no address; {advice}")
    return _kept[key]
