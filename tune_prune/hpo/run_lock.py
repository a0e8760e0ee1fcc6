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
    """The lock of one process on its run directory; `name` is the process's among several, None for the only one.

    `held` is the lock that keeps all other processes out, where this one holds it.
    """

    def __init__(self, run_dir: Path, name: str | None = None, held: FileLock | None = None) -> None:
        self._run_dir, self.name, self._held = run_dir, name, held
        self._inode = None if held is None else _inode(held)

    def exclusive(self) -> AbstractContextManager[object]:
        """Excludes the other processes while trials are started or ended, and weights deleted.

        Raises `HeldError` where the file of the lock was removed and another process has come.
        """
        if self.name is not None:
            return FileLock(self._run_dir / ".turn")
        if self._held is not None and _inode(self._held) != self._inode:
            self._lock_again(self._held)
        return nullcontext()

    def _lock_again(self, removed: FileLock) -> None:
        """Makes the removed file of the lock again; where another process made one, that process has come."""
        path = Path(removed.lock_file)
        error = HeldError(f"{path}: was removed while this search ran, and another process has come; this one ends")
        if path.exists():
            raise error
        removed.release()
        try:
            removed.acquire(timeout=0)
        except Timeout:
            raise error from None
        self._inode = _inode(removed)

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


def _inode(lock: FileLock) -> int | None:
    """What tells the file at a lock's path from another; None where there is none."""
    path = Path(lock.lock_file)
    return path.stat().st_ino if path.exists() else None


def sole_process(run_dir: Path) -> RunLock:
    """The lock of the only process of a run; it excludes nobody."""
    return RunLock(run_dir)


@contextmanager
def join_run(run_dir: Path) -> Iterator[RunLock]:
    """Enters a run as one process of several, alive until the block ends; files of processes that died are removed."""
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    path = run_dir / "processes" / name
    path.parent.mkdir(exist_ok=True)
    alive, turn = FileLock(path), FileLock(run_dir / ".turn")
    with turn:
        _remove_dead(path.parent)
        alive.acquire()
    try:
        yield RunLock(run_dir, name)
    finally:
        alive.release()
        with turn:
            _remove_dead(path.parent)


def _remove_dead(processes: Path) -> None:
    """Removes the files of processes that have ended, in whatever way."""
    for path in [path for path in processes.iterdir() if re.fullmatch(PROCESS, path.name)]:
        try:
            with FileLock(path).acquire(timeout=0):
                path.unlink()
        except Timeout:  # it is alive
            continue


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
    held = FileLock(run_dir / ".lock")
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise HeldError(f"{run_dir}: another process works there; wait for it, or name another --run-dir") from error
    try:
        yield RunLock(run_dir, held=held)
    finally:
        held.release()
