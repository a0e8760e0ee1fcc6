"""Parses JSON and TOML that come from files, within bounds: a small file must not take much memory or time.

Every function raises a `ValueError` whose message is one line; no input makes one raise anything else.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

MAX_LENGTH = 2**24
"""Bytes of a file, and characters of a JSON text."""

MAX_TOML_LENGTH = 2**20
"""Characters of a TOML text, which is parsed at a megabyte a second or less."""

MAX_KEY = 1000
"""Characters of a key."""

MAX_KEY_PARTS = 16
"""Parts of a dotted key of TOML (`a.b.c` has three): `tomllib` takes the square of their number in time."""

MAX_DEPTH = 32
"""Lists and tables within each other."""

MAX_DIGITS = 40
"""Digits of a whole number; one of hundreds could not be converted to a float, one of thousands not be printed."""

_TOML_TOKENS = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?|' r"'''(?:[^']++|'(?!''))*+(?:''')?|"
    r'"(?:[^"\\\n]++|\\.)*+"?|' r"'[^'\n]*+'?|" r"#[^\n]*+",
    re.DOTALL,
)  # fmt: skip
_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS}}}")


def read_bytes(path: Path) -> bytes:
    """Reads a file; raises a `ValueError` where it is longer than `MAX_LENGTH`, and `OSError`."""
    with path.open("rb") as file:
        data = file.read(MAX_LENGTH + 1)
    _check_length(data, MAX_LENGTH)
    return data


def read_text(path: Path) -> str:
    """Reads a file of UTF-8, without the mark that some editors put first; raises as `read_bytes` does.

    Also a `ValueError` for other bytes.
    """
    return read_bytes(path).decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """Parses a JSON text."""
    _check_length(text, MAX_LENGTH)
    try:
        value = json.loads(text, parse_int=_parse_int)
    except (RecursionError, MemoryError):
        raise _too_deep() from None
    _check_bounds(value)
    return value


def read_json(path: Path) -> Any:
    """Reads and parses a JSON file; raises a `ValueError` or an `OSError`."""
    return parse_json(read_text(path))


def parse_toml(text: str) -> dict[str, Any]:
    """Parses a TOML text."""
    _check_length(text, MAX_TOML_LENGTH)
    if _LONG_KEY.search(_TOML_TOKENS.sub(lambda token: "" if token[0].startswith("#") else "s", text)):
        raise ValueError(f"a dotted key has more than {MAX_KEY_PARTS} parts")
    try:
        value = tomllib.loads(text)
    except (RecursionError, MemoryError):
        raise _too_deep() from None
    _check_bounds(value)
    return value


def _check_length(text: str | bytes, limit: int) -> None:
    if len(text) > limit:
        raise ValueError(f"longer than {limit:,} characters")


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _check_bounds(value: object) -> None:
    """Checks depth, keys and numbers, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        for item in level:
            if isinstance(item, int) and abs(item) >= 10**MAX_DIGITS:
                raise ValueError(f"a number has more than {MAX_DIGITS} digits")
            if isinstance(item, dict) and any(len(key) > MAX_KEY for key in item):
                raise ValueError(f"a key is longer than {MAX_KEY:,} characters")
        containers = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            return
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"more than {MAX_DEPTH} lists or tables within each other")
