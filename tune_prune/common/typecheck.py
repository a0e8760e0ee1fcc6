"""Checks values that were read from a file against the types that a dataclass declares."""

import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints


def check_fields(instance: Any) -> None:
    """Raises TypeError for the first field of a dataclass whose value is not of its declared type."""
    for name, hint in _declared_types(type(instance)).items():  # type: ignore[arg-type]
        value = getattr(instance, name)
        if not fits_type(value, hint):
            raise TypeError(f"{name} must be {_describe(hint)}, got {value!r:.40}")


@cache
def _declared_types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def fits_type(value: object, hint: Any) -> bool:
    """Whether a value, as JSON has it, is of a type: a class, a union, or a list or mapping of such types.

    A whole number is a float as well, if a float can hold it; True and False are no numbers.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return any(fits_type(value, each) for each in inner)
    if origin is list:
        return isinstance(value, list) and all(fits_type(each, inner[0]) for each in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(
            fits_type(key, inner[0]) and fits_type(each, inner[1]) for key, each in value.items()
        )
    if hint is float and type(value) is int:
        return abs(value) < 1e300
    return isinstance(value, hint) and (type(value) is not bool or hint is bool)


def _describe(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
