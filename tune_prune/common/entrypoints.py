"""Addresses, 'package.module:factory(key=value)': how a user names code of their own."""

import ast
import difflib
import functools
import importlib
import os
from collections.abc import Callable
from types import ModuleType

from tune_prune.common.errors import UserError, format_names

FORM = "'package.module:factory', or 'package.module:factory(key=value)'"


def is_address(text: str) -> bool:
    """Whether the text has the form of an address, as far as its brackets; nothing is imported."""
    module, colon, attribute = text.partition("(")[0].partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])


NO_CODE = "TUNE_PRUNE_NO_CODE"
"""The environment variable under which no address is imported, here and in the processes that are started from here."""

TRUSTED_MODULES = ("torchvision.models", "tune_prune.tasks.in_memory")
"""Modules whose factories are no code of a file's author: what they are called with are plain values."""


def refuse_code(wanted: bool) -> bool:
    """Import no address from now on, if that is wanted: what `--no-code` does."""
    if wanted:
        os.environ[NO_CODE] = "1"
    return wanted


def load(address: str) -> Callable[..., object]:
    """Import the callable at an address, with its arguments where it has some; a UserError says which part is wrong."""
    if not is_address(address):
        raise UserError(f"{address!r} is not an address; write {FORM}")
    if os.environ.get(NO_CODE) and address.partition(":")[0] not in TRUSTED_MODULES:
        raise UserError(f"{address!r} names code to be run, which --no-code refuses; leave that out if you trust it")
    arguments = parse_arguments(address)
    module_name, _, name = address.partition("(")[0].partition(":")
    module = _import(module_name, address)
    if not hasattr(module, name):
        nearest = format_names(_nearest(module, name))
        raise UserError(f"{address!r}: {module_name} has no {name!r}; nearest callables: {nearest}")
    found = getattr(module, name)
    if not callable(found):
        raise UserError(f"{address!r}: {name} is of type {type(found).__name__}; name a function or a class")
    return functools.partial(found, **arguments) if arguments else found


def parse_arguments(address: str) -> dict[str, object]:
    """The arguments in an address's brackets: names with plain values, as Python writes them; nothing is run."""
    _, bracket, rest = address.partition("(")
    if not bracket:
        return {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise ValueError("only key=value is allowed")
        names = [keyword.arg for keyword in call.keywords]
        if None in names or len(set(names)) < len(names):
            raise ValueError("each key once, and only key=value is allowed")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        wrong = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{address!r}: cannot read its arguments ({wrong}); write {FORM}") from error


def call_factory(address: str, what: str) -> object:
    """What the callable at an address returns; a `UserError`, which begins with `what` is made, says why it fails."""
    factory = load(address)
    try:
        return factory()
    except UserError:
        raise
    except Exception as error:  # a user's factory may raise anything
        raise UserError(f"{what} {address!r}: its factory failed ({type(error).__name__}: {error})") from error


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
