"""Registries of what a user selects by name: pruners, schedules, models, data sets and others."""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from tune_prune.common.errors import UserError, describe_unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to entries, in the order in which they were added.

    A name that is added twice raises a ValueError. `kind` is what messages call an entry: `Registry("pruner")["foo"]`
    raises a UserError, "unknown pruner 'magn'; did you mean mag? known: mag, random". `elsewhere` lists further names
    that such a message may suggest, with how each is written, and `advice` is what may be given in place of a name.
    """

    def __init__(
        self, kind: str, elsewhere: Callable[[], Mapping[str, str]] = dict[str, str], advice: str = ""
    ) -> None:
        self._kind, self._elsewhere, self._advice = kind, elsewhere, advice
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
            raise UserError(describe_unknown(self._kind, name, self._entries, self._elsewhere(), advice=self._advice))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
