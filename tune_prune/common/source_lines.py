"""Says where a user's code is defined, and at which of its lines it failed."""

import inspect
import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

OTHERS = (str(Path(__file__).parents[1]) + os.sep, sysconfig.get_path("stdlib") + os.sep)
"""The folders of this package and of Python's own modules, whose lines are not the user's."""


def describe_code(kind: str, name: str, function: Callable[..., Any] | None) -> str:
    """What messages call a user's code, and where it is defined where that is known: "loss 'mine:f' (mine.py:12)"."""
    place = find_definition(function)
    return f"{kind} {name!r} ({place})" if place else f"{kind} {name!r}"


def describe_failure(kind: str, name: str, function: Callable[..., Any] | None, error: Exception) -> str:
    """What messages call a user's code that has failed, and where: "loss 'mine:f' fails at mine.py:12, `return x + y`".

    Where no line of the user's has failed, as in a call with wrong arguments, it is where the code is defined.
    """
    place = find_failure(error, function)
    return f"{kind} {name!r} fails{place}" if place else f"{describe_code(kind, name, function)} fails"


def find_definition(function: Callable[..., Any] | None) -> str:
    """The file and line where a function is defined: "mine.py:12"; "" where that is not known."""
    while isinstance(function, partial):
        function = function.func
    try:
        lines = inspect.getsourcelines(function)  # type: ignore[arg-type]
        return f"{Path(inspect.getsourcefile(function) or '').name}:{lines[1]}"  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""


def find_failure(error: Exception, function: Callable[..., Any] | None = None) -> str:
    """Where a user's code failed: " at mine.py:12, `return x + y`", the last line in the file of `function`.

    Without one, the last outside of this package and of libraries; "" where there is none.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = _find_file(function)
    users = [frame for frame in frames if frame.filename == own] or [
        frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith(OTHERS)
    ]
    users = [frame for frame in users if not frame.filename.startswith("<")]  # as <frozen importlib>
    if not users:
        return ""
    last = users[-1]
    line = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
    return f" at {Path(last.filename).name}:{last.lineno}" + (f", `{line}`" if line else "")


def _find_file(function: Callable[..., Any] | None) -> str | None:
    while isinstance(function, partial):
        function = function.func
    try:
        return inspect.getsourcefile(inspect.unwrap(function)) if function is not None else None
    except TypeError:  # an instance, or a function of C
        return None
