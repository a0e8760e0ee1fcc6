"""Writes values and keys of TOML, which the standard library can only read."""

import json
import re
from collections.abc import Mapping
from datetime import date, time


def format_value(value: object) -> str:
    """Writes a value as one line of TOML. Raises TypeError for one that TOML has no type for."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case int():
            return str(int(value))
        case float():
            return repr(float(value))  # a subclass's repr may be no number: NumPy's is 'np.float64(1.0)'
        case date() | time():
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(map(format_value, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{format_key(key)} = {format_value(item)}' for key, item in value.items())}}}"
    raise TypeError(f"a value must be a str, int, float, bool, date, list or dict, got {type(value).__name__}")


def format_key(key: str) -> str:
    """Writes a key of TOML, in quotes where it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _quoted(key)


def _quoted(text: str) -> str:
    """Writes a TOML basic string: with JSON's escapes, and further ones for all characters that are not printable."""
    valid = text.encode("utf-8", "replace").decode("utf-8")
    escaped = json.dumps(valid, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08X}" for char in escaped)
