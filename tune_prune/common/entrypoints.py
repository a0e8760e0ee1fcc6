"""Loads a user's own code by its address: `package.module:factory`, or `package.module:factory(key=value)`."""

import ast
import difflib
import functools
import importlib
from collections.abc import Callable
from types import ModuleType

from tune_prune.common.errors import UserError, describe_error, format_names
from tune_prune.common.import_path import is_code_refused
from tune_prune.common.source_lines import describe_failure

TRUSTED = tuple(f"tune_prune.tasks.in_memory:{kind}" for kind in ("model", "data", "function"))
"""Addresses that are imported in spite of `--no-code`: they look up what this process was given as objects."""

FROM_PYTHON = " (handed over from Python)"
"""What follows the name of an object, in files and titles, in place of an address by which it could be found again."""

FACTORY = "the address of a factory, package.module:factory"
"""What may be given in place of the name of a model or of data."""

_FORM = "'package.module:factory', or 'package.module:factory(key=value)'"


def is_address(text: str) -> bool:
    """Whether the text before its brackets has the form of an address; nothing is imported."""
    module, colon, attribute = text.partition("(")[0].partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])


def describe_address(name: str) -> str:
    """What files and titles call a model, data or a function: its name or address.

    One that came as an object is called by the name of its class or function: `Net (handed over from Python)`.
    """
    address = name.partition("(")[0]
    if address not in TRUSTED:
        return name
    return f"{parse_arguments(name).get('name', address.rpartition(':')[2])}{FROM_PYTHON}"


def is_handed_over(name: object) -> bool:
    """Whether a name from a file is of what came as an object, which no other process can find."""
    return isinstance(name, str) and (name.partition("(")[0] in TRUSTED or name.endswith(FROM_PYTHON))


def check_address(address: str) -> None:
    """Raises a `UserError` where a text is not an address, or its arguments cannot be read; nothing is imported."""
    if not is_address(address):
        raise UserError(f"{address!r} is not an address; write {_FORM}")
    parse_arguments(address)


def load(address: str, harmless: bool = False) -> Callable[..., object]:
    """Imports the callable at an address and binds the address's arguments to it.

    `harmless` is whether the caller has made sure that the address may be used in spite of `--no-code`. Raises a
    `UserError` that names the part of the address that is wrong.
    """
    check_address(address)
    if not harmless and address.partition("(")[0] not in TRUSTED:
        refuse_code(address)
    arguments = parse_arguments(address)
    module_name, _, name = address.partition("(")[0].partition(":")
    module = _import_module(module_name, address)
    if not hasattr(module, name):
        nearest = format_names(_find_nearest(module, name))
        raise UserError(f"{address!r}: {module_name} has no {name!r}; nearest callables: {nearest}")
    factory = getattr(module, name)
    if not callable(factory):
        raise UserError(f"{address!r}: {name} is of type {type(factory).__name__}; name a function or a class")
    return functools.partial(factory, **arguments) if arguments else factory


def refuse_code(address: str) -> None:
    """Raises a `UserError` that names an address where code is refused (`--no-code`)."""
    if is_code_refused():
        raise UserError(f"{address!r} names code to be run, which --no-code refuses; leave that out if you trust it")


def parse_arguments(address: str) -> dict[str, object]:
    """Reads the keyword arguments in an address's brackets: Python literals, of which nothing is run."""
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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{address!r}: cannot read its arguments ({reason}); write {_FORM}") from error


def call_factory(address: str, kind: str, harmless: bool = False) -> object:
    """Calls the factory at an address and returns its result.

    `kind` is what the factory makes, "model" or "data"; for `harmless` see `load`. Where the factory fails, a
    `UserError` says where and why.
    """
    factory = load(address, harmless)
    try:
        return factory()
    except UserError:
        raise
    except Exception as error:  # a user's factory may raise anything
        raise UserError(f"{describe_failure(kind, address, factory, error)} ({describe_error(error)})") from error


def _import_module(name: str, address: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything, and a script may exit
        advice = f"""make `python -c "import {name}"` work here"""
        raise UserError(f"{address!r}: cannot import {name} ({describe_error(error)}); {advice}") from error


def _find_nearest(module: ModuleType, name: str) -> list[str]:
    """Finds up to eight public callables of a module, those with the most similar names first."""
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    return difflib.get_close_matches(name, public, n=8, cutoff=0.0)
