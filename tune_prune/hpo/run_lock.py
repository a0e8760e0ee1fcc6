"""Locks a run directory: for one process, or for several that share a study on a server.

The locks are locks on files. The system frees them when a process ends in whatever way, on this machine or on another
that mounts the directory.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from tune_prune.common.errors import HeldError

PROCESS = r"[\w.-]*-\d+-[0-9a-f]{6}"
"""The form of a process's name: host, process id, and digits that no other process has."""


class RunLock:
    """The lock of one process on its run directory; `name` is the process's among several, None for the only one."""

    def __init__(self, run_dir: Path, name: str | None = None) -> None:
        self._run_dir, self.name = run_dir, name

    def exclusive(self) -> AbstractContextManager[object]:
        """Excludes the other processes while trials are started or ended, and weights deleted."""
        return nullcontext() if self.name is None else FileLock(self._run_dir / ".turn")

    def is_alive(self, name: str | None) -> bool:
        """Whether the process of this name runs."""
        if self.name is None or name is None or not re.fullmatch(PROCESS, name):  # the study may be a stranger's
            return False
        path = self._run_dir / "processes" / name
        if name == self.name or not path.exists():
            return name == self.name
        try:
            FileLock(path).acquire(timeout=0).lock.release()
        except Timeout:
            return True
        return False


def sole_process(run_dir: Path) -> RunLock:
    """The lock of the only process of a run; it excludes nobody."""
    return RunLock(run_dir)


@contextmanager
def join_run(run_dir: Path) -> Iterator[RunLock]:
    """Enters a run as one process of several, alive until the block ends."""
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    path = run_dir / "processes" / name
    path.parent.mkdir(exist_ok=True)
    with FileLock(path):
        try:
            yield RunLock(run_dir, name)
        finally:
            path.unlink()


@contextmanager
def lock_run(run_dir: Path, *, shared: bool) -> Iterator[RunLock]:
    """Makes and locks a run directory; where it is `shared`, joins the other processes.

    Raises `HeldError` where another process has locked it for itself alone.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    if shared:
        with join_run(run_dir) as lock:
            yield lock
        return
    try:
        held = FileLock(run_dir / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise HeldError(f"{run_dir}: another process works there; wait for it, or name another --run-dir") from error
    with held:
        yield sole_process(run_dir)
