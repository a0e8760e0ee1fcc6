"""Notices what takes too long."""

import threading
from collections.abc import Callable


class Watchdog:
    """Calls a function after a timeout in `seconds`, in a thread of its own; never, where `seconds` is None."""

    def __init__(self, seconds: float | None, on_timeout: Callable[[], None]) -> None:
        self._on_timeout, self._lock = on_timeout, threading.Lock()
        self._timer = None if seconds is None else threading.Timer(seconds, self._call)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """Cancels the call; where it runs already, waits until it has ended."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _call(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._on_timeout()
