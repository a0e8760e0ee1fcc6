"""Something that is done when something else takes too long."""

import threading
from collections.abc import Callable


class Watchdog:
    """Calls `bite` in a thread of its own, `seconds` from now, unless it is stopped before; None is never."""

    def __init__(self, seconds: float | None, bite: Callable[[], None]) -> None:
        self._bite, self._over = bite, threading.Lock()
        self._timer = None if seconds is None else threading.Timer(seconds, self._late)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """It was in time. Where it was not, this waits for what is done about it."""
        with self._over:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _late(self) -> None:
        with self._over:
            if self._timer is not None:
                self._bite()
