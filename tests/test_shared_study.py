"""Two processes that share one search, whose study is on a PostgreSQL server that the test starts and restarts."""

import getpass
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import optuna
import pytest
from deadlines import WAIT, scaled
from searches import SPACE, summary_of
from test_launch import MODULE, ROOT

from tune_prune.hpo import storage
from tune_prune.results import records

pytestmark = [pytest.mark.faults, pytest.mark.timeout(scaled(3600))]
PASSWORD = "a-secret-word"


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them off the PATH."""
    initdb = shutil.which("initdb")
    folders = [Path(initdb).parent] if initdb else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@dataclass(frozen=True)
class Server:
    """A database server that listens on loopback alone, and how it is stopped at once and started again."""

    url: str
    stop: Callable[[], object]
    start: Callable[[], object]


@pytest.fixture
def server() -> Iterator[Server]:
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    # the server refuses to run as root
    user = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
    if user and subprocess.run([*user, "true"], capture_output=True, check=False).returncode:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # its socket has a short name
    (place / "word").write_text(PASSWORD)
    place.chmod(0o777)
    data = str(place / "data")
    start = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place} -c fsync=off"
    quiet = {"stdout": subprocess.DEVNULL, "cwd": place, "check": True}
    made = [folder / "initdb", "-D", data, "-U", "prune", "-A", "scram-sha-256", f"--pwfile={place / 'word'}"]
    subprocess.run([*user, *made], **quiet)  # type: ignore[call-overload]
    control = [*user, folder / "pg_ctl", "-D", data, "-w", "-l", place / "log"]
    begin, end = [*control, "-o", start, "start"], [*control, "-m", "immediate", "stop"]
    made_ = Server(
        f"postgresql://prune:{PASSWORD}@127.0.0.1:{port}/postgres",
        stop=lambda: subprocess.run(end, **quiet),  # type: ignore[call-overload]
        start=lambda: subprocess.run(begin, **quiet),  # type: ignore[call-overload]
    )
    made_.start()
    try:
        yield made_
    finally:
        made_.stop()
        shutil.rmtree(place)


def test_two_processes_share_a_search_whose_server_is_restarted(server: Server, tmp_path: Path) -> None:
    slow = "time.sleep(0.2)\n    return weight.abs()"  # so that there is something left for the second
    (tmp_path / "my_lab.py").write_text(MODULE.replace("return weight.abs()", slow))
    space = SPACE.replace("toys:", "my_lab:").replace('["mag", "taylor1"]', '"my_lab:mag"')
    (tmp_path / "toy.toml").write_text(space)
    run = tmp_path / "run"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}

    def begin(output: str, *flags: str) -> "subprocess.Popen[str]":
        words = ["-m", "tune_prune", "search", *flags, "--storage", server.url, "--max-concurrent", "1"]
        pipe, out = subprocess.PIPE, (tmp_path / output).open("w")
        with out:
            return subprocess.Popen(
                [sys.executable, *words], cwd=tmp_path, env=environment, stdout=out, stderr=pipe, text=True
            )

    first = begin("first.txt", "--force", "--space", "toy.toml", "--run-dir", "run", "--budget", "14")
    while not (run / "run.json").is_file():
        assert first.poll() is None, first.communicate()
    second = begin("second.txt", "--resume", "run")
    both = (first, "first.txt"), (second, "second.txt")

    def wait_until(holds: Callable[[], object]) -> None:
        while not holds():
            if first.poll() is not None or second.poll() is not None:
                raise AssertionError([process.communicate() for process, _ in both])
            time.sleep(0.02)

    wait_until(lambda: len(list((run / "processes").glob("*"))) == 2 and list((run / "results").glob("*.json")))
    server.stop()
    wait_until(lambda: any("does not answer" in (tmp_path / name).read_text() for _, name in both))
    server.start()
    errors = [process.communicate(timeout=WAIT)[1] for process, _ in both]
    outputs = [((tmp_path / name).read_text(), err) for (_, name), err in zip(both, errors, strict=True)]
    assert [(process.returncode, err) for process, (_, err) in zip((first, second), outputs, strict=True)] == [
        (0, "")
    ] * 2
    opened = storage.open_url(server.url)
    [name] = optuna.get_all_study_names(opened)
    trials = optuna.load_study(study_name=name, storage=opened).trials
    opened.remove_session()
    opened.engine.dispose()
    assert [trial.number for trial in trials] == list(range(14))
    assert len({trial.user_attrs["process"] for trial in trials}) == 2  # both did work
    assert {trial.user_attrs.get("starts", 1) for trial in trials} == {1}  # and none was run twice
    ended = records.read_all(run)
    assert [record.trial for record in ended] == list(range(14))
    assert {record.state for record in ended} <= {"complete", "stopped"}
    counted = summary_of(run)["trials"]
    assert counted["completed"] + counted["stopped"] == 14
    # one of them wrote the front, the other saw it written
    assert sum("another process has written the front" in out for out, _ in outputs) == 1
    assert list((run / "processes").iterdir()) == []
    written = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert sum("the server of the study answers again" in out for out, _ in outputs) >= 1
    assert PASSWORD.encode() not in written
    assert not any(PASSWORD in out + err for out, err in outputs)
