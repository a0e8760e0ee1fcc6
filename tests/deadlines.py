"""How long the tests wait. A deadline ends what hangs, and never what is merely slow.

Deadlines are generous and grow with how slow this machine is when the tests start: on one that has other things to do,
everything takes several times as long.
"""

import importlib
import os
import time

SLOWNESS = "TUNE_PRUNE_TESTS_SLOWNESS"
"""The environment variable that hands what the first process has measured to pytest-xdist's workers."""

QUIET_SECONDS = 1.5
"""How long importing PyTorch takes on a quiet machine."""

MOST = 8.0
"""The greatest slowness that counts: what hangs has to end as well."""


def _measure_slowness() -> float:
    """How many times longer than on a quiet machine importing PyTorch takes, at least 1."""
    start = time.perf_counter()
    importlib.import_module("torch")
    return min(MOST, max(1.0, (time.perf_counter() - start) / QUIET_SECONDS))


def scaled(seconds: float) -> float:
    """A deadline of so many seconds on a quiet machine, as it has to be on this one."""
    return seconds * float(os.environ[SLOWNESS])


if SLOWNESS not in os.environ:
    os.environ[SLOWNESS] = str(_measure_slowness())

WAIT = scaled(300)
"""Seconds to wait for a process or a condition, which on a quiet machine takes ten or so."""

TEST = scaled(900)
"""Seconds within which a test ends, the fixtures among it that it is the first to need."""
