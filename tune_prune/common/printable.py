"""Makes text that comes from files safe to print."""

import unicodedata


def make_printable(text: str) -> str:
    """Replaces characters that a terminal would act on, instead of showing them, by their escapes: "\\x1b", "\\n".

    They are control characters, with which escape sequences begin, and format characters, which turn the direction of
    writing or have no width. Letters of all scripts and all kinds of spaces stay.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_shown(char) else char.encode("unicode_escape").decode("ascii") for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"
