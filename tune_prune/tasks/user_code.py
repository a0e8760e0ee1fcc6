"""Calls functions of the user's, and says in one line which of them failed, where, and why."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tune_prune.common.errors import UserError, describe_error
from tune_prune.common.source_lines import describe_failure


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
        raise UserError(f"{describe_failure(kind, name, function, error)} ({describe_error(error)})") from error
