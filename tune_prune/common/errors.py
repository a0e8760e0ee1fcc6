"""Errors that end a command with one line, and their words."""

from collections.abc import Iterable


class UserError(Exception):
    """What is wrong, where, and what would be right, on one line.

    The command line prints the message, no traceback, and exits with 2.
    """

    def __init__(self, message: str) -> None:
        # a message quotes file names and other libraries' errors, and those may hold line breaks
        super().__init__(" ".join(message.splitlines()))


class HeldError(Exception):
    """Another process works in the run directory. The command line exits with 75."""


def format_names(names: Iterable[str]) -> str:
    """What there is to choose from, as messages list it: "a, b, c"."""
    return ", ".join(names) or "none"
