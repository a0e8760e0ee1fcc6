"""Tells how far a training is, after each of its steps, whoever asks: `with on_step(show): ...`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

OnStep = Callable[[int, int], None]
"""Is called with the steps that are done, and with how many there are."""

_called: ContextVar[OnStep | None] = ContextVar("called", default=None)


@contextmanager
def on_step(function: OnStep) -> Iterator[None]:
    """Has every training in the block call a function after each of its steps."""
    before = _called.set(function)
    try:
        yield
    finally:
        _called.reset(before)


def step_done(done: int, steps: int) -> None:
    """Calls the function that asked for it, where there is one."""
    function = _called.get()
    if function is not None:
        function(done, steps)
