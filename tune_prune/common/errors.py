"""Errors that end a command with one line, and what their messages say of other errors and of names."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

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


@contextmanager
def prefix_errors(where: str) -> Iterator[None]:
    """Puts a place, such as a file and a key, before the message of a `UserError`; "" changes nothing."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error


SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "trials": ("budget",), "ntrials": ("budget",), "numsamples": ("budget",), "maxtrials": ("budget",),
    "timeout": ("time_budget",), "time": ("time_budget",), "maxtime": ("time_budget",), "tradeoff": ("acc_tradeoff",),
    "output": ("out", "run_dir"), "outdir": ("out", "run_dir"), "dir": ("run_dir", "out"), "config": ("space",),
    "njobs": ("max_concurrent",), "parallel": ("max_concurrent",), "workers": ("max_concurrent",),
    "min": ("low",), "minimum": ("low",), "lower": ("low",), "max": ("high",), "maximum": ("high",),
    "upper": ("high",), "sparsity": ("ratio",), "amount": ("ratio",), "criterion": ("pruner",), "gpu": ("cuda",),
    "learningrate": ("lr",), "optimiser": ("optimizer",), "checkpoint": ("weights",), "pretrained": ("weights",),
}  # fmt: skip
"""Words of other programs, without punctuation, with what they are called here: the first that is known is meant."""

SIMILARITY = 0.7
"""The least similarity of two names, by `difflib`, of which one is taken for a misspelling of the other."""


def describe_unknown(
    kind: str,
    name: str,
    known: Iterable[str],
    elsewhere: Mapping[str, str] | None = None,
    *,
    prefix: str = "",
    advice: str = "",
) -> str:
    """What a message says of a name that there is not: "unknown pruner 'magn'; did you mean mag? known: mag, random".

    `elsewhere` are further names with how each is written: {"resnet18": "torchvision:resnet18"}. `prefix` is shown
    before the name, and `advice` is what may be given in place of a known one.
    """
    known = list(known)
    nearest = find_nearest(name, known, elsewhere or {})
    meant = f"did you mean {nearest}? " if nearest else ""
    return f"unknown {kind} {prefix + name!r}; {meant}known: {format_names(known)}{f', or {advice}' if advice else ''}"


def describe_choice(value: object, choices: Iterable[str]) -> str:
    """What a message says of a value that is none of the choices: "must be one of tpe, random, got tpa; did ..."."""
    choices = list(choices)
    nearest = find_nearest(str(value), choices)
    fault = f"must be one of {format_names(choices)}, got {value}"
    return f"{fault}; did you mean {nearest}?" if nearest else fault


def find_nearest(name: str, known: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """The known name that is probably meant by another, or how it is written `elsewhere`; "" where none is similar.

    Case and punctuation make no difference. The same name counts first, then a synonym, then one that is similar.
    """
    letters, meanings = _letters(name), [_letters(word) for word in SYNONYMS.get(_letters(name), ())]
    here = {_letters(each): each for each in known}
    there = {_letters(each): written for each, written in (elsewhere or {}).items()}
    for names, words in ((here, [letters, *meanings]), (there, [letters])):
        for word in words:
            if word and word in names:
                return names[word]
    both = there | here
    close = difflib.get_close_matches(letters, both, n=1, cutoff=SIMILARITY)
    return both[close[0]] if close else ""


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def format_names(names: Iterable[str]) -> str:
    """Lists names for a message: "a, b, c", or "none"."""
    return ", ".join(names) or "none"
