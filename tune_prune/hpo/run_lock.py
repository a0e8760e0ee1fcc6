"""The processes that search in one run directory: which of them are alive, and whose turn it is.

Both are told by locks on files, which the system frees when a process ends in whatever way, on this machine or another
that mounts the directory. A run whose study is in its own file has one process.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


class RunLock:
    """One of these processes, called `name`; None where it is the only one."""

    def __init__(self, run_dir: Path, name: str | None = None) -> None:
        self._run_dir, self.name = run_dir, name

    def exclusive(self) -> AbstractContextManager[object]:
        """What no other process does at the same time: to begin trials, to take up ended ones, to delete weights."""
        return nullcontext() if self.name is None else FileLock(self._run_dir / ".turn")

    def is_alive(self, name: str | None) -> bool:
        """Whether another process, or this one, still runs."""
        if self.name is None or name is None:
            return False
        path = self._path(name)
        if name == self.name or not path.exists():
            return name == self.name
        try:
            FileLock(path).acquire(timeout=0).lock.release()
        except Timeout:
            return True
        return False

    def _path(self, name: str) -> Path:
        return self._run_dir / "processes" / name


def sole_process(run_dir: Path) -> RunLock:
    """The only process of a run."""
    return RunLock(run_dir)


@contextmanager
def join_run(run_dir: Path) -> Iterator[RunLock]:
    """One process of several, alive until the block ends."""
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    path = run_dir / "processes" / name
    path.parent.mkdir(exist_ok=True)
    with FileLock(path):
        try:
            yield RunLock(run_dir, name)
        finally:
            path.unlink()
