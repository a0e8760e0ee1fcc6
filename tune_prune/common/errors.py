"""Errors that end a command with one line, and what their messages say of other errors and of names."""

from collections.abc import Iterable

from tune_prune.common.printable import make_printable


class UserError(Exception):
    """An error that the user can correct: the message says on one line what is wrong, where, and what would be right.

    Line breaks in the message become spaces, and control characters their escapes. The command line prints it without a
    traceback and exits with 2.
    """

    def __init__(self, message: str) -> None:
        # a message quotes files and other libraries' errors, which may hold line breaks and escape sequences
        super().__init__(make_printable(" ".join(message.splitlines())))


class HeldError(Exception):
    """Another process works in the run directory. The command line exits with 75."""


REASON_LENGTH = 400
"""Characters of another error's message that a message quotes; some libraries print whole arrays."""


def describe_error(error: BaseException) -> str:
    """Describes an error on one line, by its type and the first `REASON_LENGTH` characters of its message."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return reason if len(reason) <= REASON_LENGTH else reason[:REASON_LENGTH] + " [...]"


def format_names(names: Iterable[str]) -> str:
    """Lists names for a message: "a, b, c", or "none"."""
    return ", ".join(names) or "none"
