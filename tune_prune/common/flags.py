"""Flags of the command line that dataclasses declare: a field says once what its option is.

Its name, type, default, rule, help, panel and parser, and what `--resume` does with it, all stand at the field. The
command line, the checks and the file that keeps a run's settings are derived from that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

from tune_prune.common.errors import UserError, describe_choice

T = TypeVar("T")

METADATA = "flag"
"""The key of a `Flag` in the metadata of its field."""


class Flag(NamedTuple):
    """An option, but for its name, type and default, which are the field's.

    `check` returns whether a value is right (None always is), and `rule` says what is right: "--budget must be at least
    1 trial, got 0". `parse` takes the option's text and name, and returns the value. A flag that is `fixed_on_resume`
    cannot be given with `--resume`. A resumed run takes over the values of the run that it goes on with, unless a flag
    is given again; of a flag that is not `kept_on_resume` it takes the default. `choices` returns all
    values that are right, where they have names; it takes the place of `check` and `rule`.
    """

    help: str
    panel: str
    check: Callable[[Any], bool] = lambda value: True
    rule: str = ""
    parse: Callable[[str, str], Any] | None = None
    fixed_on_resume: bool = False
    kept_on_resume: bool = True
    choices: Callable[[], Sequence[str]] | None = None

    def accepts(self, value: Any) -> bool:
        """Whether a value is right."""
        return value in self.choices() if self.choices else self.check(value)

    def describe_fault(self, value: Any) -> str:
        """What a message says of a value that is not right: "must be at least 1 trial, got 0"."""
        return describe_choice(value, self.choices()) if self.choices else f"must be {self.rule}, got {value}"


def flag(help: str, panel: str, **more: Any) -> Mapping[str, Flag]:
    """Declares the flag of a dataclass's field, as the field's metadata; for `more` see `Flag`."""
    return {METADATA: Flag(help, panel, **more)}


class Setting(NamedTuple):
    """A declared flag with the name and the type of its field."""

    name: str
    type: Any
    flag: Flag

    @property
    def option(self) -> str:
        """The option of the command line, such as `--time-budget`."""
        return "--" + self.name.replace("_", "-")


def declared_settings(kind: type) -> dict[str, Setting]:
    """The flags that a dataclass declares, by the names of their fields; fields that are dataclasses add theirs."""
    found: dict[str, Setting] = {}
    for each in fields(kind):
        if isinstance(each.type, type) and is_dataclass(each.type):
            found |= declared_settings(each.type)
        elif METADATA in each.metadata:
            found[each.name] = Setting(each.name, each.type, each.metadata[METADATA])
    return found


def check_settings(instance: Any) -> None:
    """Raises a `UserError` for the first field whose value breaks its flag's rule."""
    for each in fields(instance):
        declared, value = each.metadata.get(METADATA), getattr(instance, each.name)
        if declared is not None and value is not None and not declared.accepts(value):
            option = Setting(each.name, each.type, declared).option
            raise UserError(f"{option} {declared.describe_fault(value)}")


def parse_settings(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Parses options of the command line, by the names of their fields, and leaves out those that were not given.

    An option that was not given is None, or False where it is a switch.
    """
    found: dict[str, Any] = {}
    for name, setting in declared_settings(kind).items():
        value = options[name]
        if value is None or value is False:
            continue
        found[name] = value if setting.flag.parse is None else setting.flag.parse(value, setting.option)
    return found


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Makes a dataclass from values by the names of its fields; a field that is a dataclass is made from its own.

    Raises TypeError for a name that is no field.
    """
    flat, nested = dict(values), {}
    for each in fields(kind):  # type: ignore[arg-type]
        if isinstance(each.type, type) and is_dataclass(each.type):
            names = [inner.name for inner in fields(each.type) if inner.name in flat]
            nested[each.name] = build(each.type, {name: flat.pop(name) for name in names})
    return kind(**flat, **nested)


def flatten(instance: Any) -> dict[str, Any]:
    """The values of a dataclass by the names of its fields, as `build` takes them."""
    found: dict[str, Any] = {}
    for each in fields(instance):
        value = getattr(instance, each.name)
        found |= flatten(value) if is_dataclass(value) else {each.name: value}
    return found
