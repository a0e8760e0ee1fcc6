"""What `tune_prune` hands to its users has a name there."""

import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

import tune_prune

NAMES = [name for name in tune_prune.__all__ if not name.startswith("__")]


def find_types(hint: Any) -> Iterator[type]:
    """The classes in a type hint that are of the package."""
    if inspect.isclass(hint) and hint.__module__.startswith("tune_prune."):
        yield hint
    for part in get_args(hint):
        yield from find_types(part)


def list_handed_out(given: Any) -> Iterator[Any]:
    """The hints of what a public function returns, or of the public attributes, properties and methods of a class."""
    if not inspect.isclass(given):
        yield get_type_hints(given).get("return")
        return
    if not given.__module__.startswith("tune_prune.distributed."):  # Ray calls the methods of these, and no user
        yield from get_type_hints(given).values()
        for name, member in vars(given).items():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(function) and (not name.startswith("_") or name == "__iter__"):
                yield get_type_hints(function).get("return")


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_hands_out_has_a_name(name: str) -> None:
    found = {one for hint in list_handed_out(getattr(tune_prune, name)) for one in find_types(hint)}
    assert found <= {getattr(tune_prune, other) for other in NAMES}


def test_a_members_type_is_handed_out() -> None:
    assert tune_prune.Pruned in {one for hint in list_handed_out(tune_prune.Front) for one in find_types(hint)}
