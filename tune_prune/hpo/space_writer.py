"""Writes the text of a space with some of its keys changed, as `space_reader` reads it."""

from collections.abc import Iterator, Mapping

from tune_prune.common.parsing import parse_toml
from tune_prune.common.toml_writer import format_key, format_value

Changes = Mapping[str, Mapping[str, object]]
"""New values by table and key, as {"space": {"lr": 0.1}}; None takes a key away."""


def override(text: str, changes: Changes) -> str:
    """The text of a space, whose TOML is right, with changed keys.

    Of a text that changes, the comments at its top stay. One for which there are no changes stays as it is.
    """
    changes = {name: table for name, table in changes.items() if table}
    if not changes:
        return text
    raw = parse_toml(text)
    merged = {name: {**raw.get(name, {}), **changes.get(name, {})} for name in {**raw, **changes}}
    lines = text.splitlines()[: _count_comments(text)]
    for name, table in merged.items():
        lines += ["", *_write_table(name, {key: value for key, value in table.items() if value is not None})]
    return "\n".join(lines).lstrip("\n") + "\n"


def _count_comments(text: str) -> int:
    """How many comment lines a text begins with."""
    return next((at for at, line in enumerate(text.splitlines()) if not line.startswith("#")), 0)


def _write_table(name: str, table: Mapping[str, object]) -> Iterator[str]:
    """The lines of a table; the tables in it follow it, headed by their own names."""
    yield f"[{name}]"
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping) and key == "ratio"}
    yield from (f"{format_key(key)} = {format_value(value)}" for key, value in table.items() if key not in inner)
    for key, value in inner.items():
        yield ""
        yield from _write_table(f"{name}.{key}", value)
