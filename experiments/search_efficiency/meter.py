"""When this process used its CPU seconds, ten times a second: they are charged when they were used."""

import threading
import time


class Meter:
    """Runs from its making to `stop`."""

    def __init__(self) -> None:
        self._seen = [(time.time(), time.process_time())]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            self._seen.append((time.time(), time.process_time()))

    def stop(self) -> None:
        """Measure no more."""
        self._stopped.set()
        self._thread.join()
        self._seen.append((time.time(), time.process_time()))

    def until(self, moment: float) -> float:
        """The CPU seconds used until then, in seconds since the epoch."""
        return max(used for at, used in self._seen if at <= moment or used == self._seen[0][1])


def charged(ends: list[tuple[float, float]], meter: Meter) -> list[float]:
    """For trials that took so many CPU seconds each and ended then, in that order: with the driver's since the last."""
    rows, before = [], 0.0
    for end, seconds in ends:
        driver = meter.until(end)
        rows.append(seconds + driver - before)
        before = driver
    return rows
