"""Calls functions of the user's, and says in one line which of them failed, where, and why."""

import inspect
import linecache
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tune_prune.common.errors import UserError, describe_error


@contextmanager
def user_code(kind: str, name: str, function: Callable[..., Any] | None = None) -> Iterator[None]:
    """Turns what a user's code raises into a `UserError` that names the code, its file and line.

    `kind` and `name` are what messages call it, as in "loss 'mine:loss'". The line is the last one in the file of
    `function`, where that is known, else the last one outside of libraries. What a device without memory raises is left
    as it is: whether that is the user's fault depends on what else runs there.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's code may raise anything
        place = _describe_place(error, function)
        raise UserError(f"{kind} {name!r} fails{place} ({describe_error(error)})") from error


def describe_code(kind: str, name: str, function: Callable[..., Any] | None) -> str:
    """What messages call a user's code, and where it is defined where that is known: "loss 'mine:f' (mine.py:12)"."""
    try:
        lines = inspect.getsourcelines(function)  # type: ignore[arg-type]
        return f"{kind} {name!r} ({Path(inspect.getsourcefile(function) or '').name}:{lines[1]})"  # type: ignore[arg-type]
    except (OSError, TypeError):
        return f"{kind} {name!r}"


def _describe_place(error: Exception, function: Callable[..., Any] | None) -> str:
    """Where the user's code failed: " at mine.py:12, `return x + y`"."""
    frames = traceback.extract_tb(error.__traceback__)
    own = _find_file(function)
    users = [frame for frame in frames if frame.filename == own] or [
        frame for frame in frames if "site-packages" not in frame.filename and "/tune_prune/" not in frame.filename
    ]
    if not users:
        return ""
    last = users[-1]
    line = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
    return f" at {Path(last.filename).name}:{last.lineno}" + (f", `{line}`" if line else "")


def _find_file(function: Callable[..., Any] | None) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(function)) if function is not None else None
    except TypeError:  # an instance, or a function of C
        return None
