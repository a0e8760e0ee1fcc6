"""Names for things that a user picks by name."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tune_prune.common.errors import UserError, format_names

T = TypeVar("T")


class Registry(Generic[T]):
    """A dict, in the order of adding, that refuses a name twice and says what there is on a miss.

    `kind` is what messages call an entry; `Registry("pruner")["foo"]` raises a UserError,
    "unknown pruner 'foo'; known: mag, random".
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Add an entry; raises ValueError where the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is registered already")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that adds what it decorates and returns it unchanged."""

        def decorate(entry: T) -> T:
            self.add(name, entry)
            return entry

        return decorate

    def names(self) -> tuple[str, ...]:
        """Every name, in the order of adding."""
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
