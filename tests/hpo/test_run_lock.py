"""Which processes of a run are alive."""

import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from tune_prune.hpo.run_lock import join_run, sole_process

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
    assert [path.name for path in (tmp_path / "processes").iterdir()] == [name]


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


def test_the_only_process_of_a_run_writes_nothing(tmp_path: Path) -> None:
    lock = sole_process(tmp_path)
    with lock.exclusive():
        assert not lock.is_alive("another")
    assert (lock.name, list(tmp_path.iterdir())) == (None, [])
