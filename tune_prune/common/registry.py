"""Registries of what a user selects by name: pruners, schedules, models, data sets and others."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tune_prune.common.errors import UserError, format_names

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to entries, in the order in which they were added.

    A name that is added twice raises a ValueError. `kind` is what messages call an entry: `Registry("pruner")["foo"]`
    raises a UserError, "unknown pruner 'foo'; known: mag, random".
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Adds an entry; raises ValueError where the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is registered already")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[T], T]:
        """Makes a decorator that adds the decorated object and returns it unchanged."""

        def decorate(entry: T) -> T:
            self.add(name, entry)
            return entry

        return decorate

    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were added."""
        return tuple(self._entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise UserError(f"unknown {self._kind} {name!r}; known: {format_names(self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
