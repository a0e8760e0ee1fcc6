"""Addresses, 'package.module:factory': how a user names code of their own."""

import difflib
import importlib
from collections.abc import Callable
from types import ModuleType

from tune_prune.errors import UserError, known


def is_address(text: str) -> bool:
    """Whether the text has the form 'package.module:factory'; nothing is imported."""
    module, colon, attribute = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])


def load(address: str) -> Callable[..., object]:
    """Import the callable at an address; a UserError says which part of the address is wrong."""
    if not is_address(address):
        raise UserError(f"{address!r} is not an address; write 'package.module:factory'")
    module_name, _, name = address.partition(":")
    module = _import(module_name, address)
    if not hasattr(module, name):
        nearest = known(_nearest(module, name))
        raise UserError(f"{address!r}: {module_name} has no {name!r}; nearest callables: {nearest}")
    found = getattr(module, name)
    if not callable(found):
        raise UserError(f"{address!r}: {name} is of type {type(found).__name__}; name a function or a class")
    return found  # type: ignore[no-any-return]


def _import(name: str, address: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything, and a script may exit
        reason = f"{type(error).__name__}: {error}"
        advice = f"""make `python -c "import {name}"` work here"""
        raise UserError(f"{address!r}: cannot import {name} ({reason}); {advice}") from error


def _nearest(module: ModuleType, name: str) -> list[str]:
    """Up to eight public callables of a module, the most alike first."""
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    return difflib.get_close_matches(name, public, n=8, cutoff=0.0)
