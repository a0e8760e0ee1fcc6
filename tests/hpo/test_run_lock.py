"""Which processes of a run are alive."""

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tune_prune.common.errors import HeldError
from tune_prune.hpo.run_lock import join_run, lock_run, sole_process

JOIN = """
import sys
from pathlib import Path
from tune_prune.hpo.run_lock import join_run
with join_run(Path(sys.argv[1])) as lock:
    print(lock.name, flush=True)
    sys.stdin.read()
"""


def test_another_process_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", JOIN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        with join_run(tmp_path) as lock:
            assert (lock.is_alive(name), lock.is_alive(lock.name), lock.is_alive("who")) == (True, True, False)
            assert lock.is_alive(name)  # the question does not take its lock away
            other.kill()
            other.wait()
            assert not lock.is_alive(name)
            assert lock.name != name
            assert {path.name for path in (tmp_path / "processes").iterdir()} == {name, lock.name}
    assert list((tmp_path / "processes").iterdir()) == []


def test_the_file_of_a_process_that_was_killed_goes_with_the_next_that_comes(tmp_path: Path) -> None:
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "host-1-abcdef").touch()
    with join_run(tmp_path) as first, join_run(tmp_path) as second:
        assert {path.name for path in (tmp_path / "processes").iterdir()} == {first.name, second.name}


def test_the_name_of_a_process_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    with join_run(tmp_path / "run") as lock:
        assert not any(lock.is_alive(name) for name in ("../../precious", str(tmp_path / "precious"), "..", "a/b"))
    assert (tmp_path / "precious").read_text() == "mine"


def test_one_process_at_a_time_is_exclusive(tmp_path: Path) -> None:
    with join_run(tmp_path) as first, join_run(tmp_path) as second:
        with first.exclusive():
            lock = second.exclusive()
            assert isinstance(lock, FileLock)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                pass
            else:
                raise AssertionError("both were exclusive")
        with second.exclusive():
            pass


def test_a_lock_whose_file_is_removed_is_taken_again(tmp_path: Path) -> None:
    with lock_run(tmp_path, shared=False) as lock:
        for _ in range(2):
            (tmp_path / ".lock").unlink()
            with lock.exclusive():
                pass
            with pytest.raises(HeldError, match="another process works there"), lock_run(tmp_path, shared=False):
                pass
    with lock_run(tmp_path, shared=False):  # it was freed
        pass


@pytest.mark.parametrize("ended", [True, False])
def test_a_lock_whose_file_is_removed_belongs_to_who_came_meanwhile(tmp_path: Path, ended: bool) -> None:
    with lock_run(tmp_path, shared=False) as lock:
        (tmp_path / ".lock").unlink()
        with lock_run(tmp_path, shared=False) as other:
            if not ended:
                with pytest.raises(HeldError, match=r"\.lock: was removed while this search ran"):
                    lock.exclusive()
            other.exclusive()
        with pytest.raises(HeldError, match=r"\.lock: was removed while this search ran"):  # the study has changed
            lock.exclusive()


def test_the_only_process_of_a_run_writes_nothing(tmp_path: Path) -> None:
    lock = sole_process(tmp_path)
    with lock.exclusive():
        assert not lock.is_alive("another")
    assert (lock.name, list(tmp_path.iterdir())) == (None, [])
