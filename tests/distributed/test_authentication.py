"""Ray's token and the addresses that it listens on. One test starts Ray, in a process of its own."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from deadlines import WAIT
from toys import fault

from tune_prune.distributed import authentication, session
from tune_prune.training.resources import Resources

SESSION = """
import json
from contextlib import suppress
from pathlib import Path
import ray
from tune_prune.distributed.session import ray_session
from tune_prune.training.resources import Resources

def parents():
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # of a process that has ended since
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found

def children(parent, of):
    found = [pid for pid, above in of.items() if above == parent]
    return [*found, *(pid for child in found for pid in children(child, of))]

def sockets(pid):
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # of a file that was closed since, the folder itself for one
            found.add(link.readlink().name)
    return found

with ray_session(Resources(), 0, Path("ray.log")):
    assert ray.get(ray.remote(sockets).remote("self"))
    own = set().union(*map(sockets, [*children(int(Path("/proc/self").readlink().name), parents()), "self"]))
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    listening = [row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]
print(json.dumps(listening))
"""
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F")
"""127.0.0.1 as Linux lists it, also as an address of IPv6."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory; no variable says anything of a token."""
    for name in (authentication.MODE, authentication.TOKEN, authentication.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_local_ray_listens_on_loopback_alone_and_needs_no_home(home: Path, tmp_path: Path) -> None:
    home.rmdir()
    home.write_text("no directory")
    command = [sys.executable, "-c", SESSION]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT, check=False)
    assert ended.returncode == 0, ended.stderr
    listening = json.loads(ended.stdout)
    assert len(listening) >= 4  # of the head, the raylet, workers and this process
    assert set(listening) <= {*LOOPBACK}


def test_a_token_that_its_owner_alone_can_read(home: Path) -> None:
    authentication.ensure_token()
    path = home / ".ray" / "auth_token"
    first = path.read_text()
    assert len(first) == 64
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    authentication.ensure_token()
    assert path.read_text() == first
    assert [each.name for each in path.parent.iterdir()] == ["auth_token"]
    assert authentication.TOKEN not in os.environ


def test_permissions_of_others_are_taken_from_a_token_that_is_there(home: Path) -> None:
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("a" * 64)
    path.chmod(0o644)
    authentication.ensure_token()
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("a" * 64, 0o600)


@pytest.mark.parametrize("missing", ["no directory", "no variable"])
def test_without_a_home_the_token_is_in_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv(authentication.TOKEN, "")  # for it to be removed again
    if missing == "no variable":
        monkeypatch.delenv("HOME")
    else:
        home.rmdir()
        home.write_text("")
    authentication.ensure_token()
    assert len(os.environ[authentication.TOKEN]) == 64


@pytest.mark.parametrize("name", [authentication.TOKEN, authentication.TOKEN_PATH])
def test_a_token_of_the_users_own_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "mine")
    authentication.ensure_token()
    assert os.environ[name] == "mine"
    assert not list(home.iterdir())


@pytest.mark.parametrize("mode", ["disabled", "DISABLED", "k8s", ""])
def test_a_local_ray_without_its_token_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv(authentication.MODE, mode)
    danger = "every program on this machine could run code through Ray"
    said = f"RAY_AUTH_MODE={mode}: without its token {danger}; unset RAY_AUTH_MODE, or set it to token"

    def start() -> None:
        with session.ray_session(Resources(), 0, tmp_path / "ray.log"):
            raise AssertionError("started")

    assert fault(start) == said
    assert not session.ray.is_initialized()


def test_a_file_of_the_users_own_without_a_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "token"
    monkeypatch.setenv(authentication.TOKEN_PATH, str(path))
    advice = "unset RAY_AUTH_TOKEN_PATH"
    said = f"RAY_AUTH_TOKEN_PATH={path}: cannot be read (No such file or directory); {advice}"
    assert fault(authentication.check_environment) == said
    path.write_text("\n")
    assert fault(authentication.check_environment) == f"RAY_AUTH_TOKEN_PATH={path}: holds no token; {advice}"
    path.write_text("a" * 64)
    authentication.check_environment()


@pytest.mark.parametrize("mode", [None, "disabled", "token"])
def test_a_cluster_that_answers_without_a_token(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mode: str | None
) -> None:
    if mode is not None:
        monkeypatch.setenv(authentication.MODE, mode)
    monkeypatch.setattr(session.cluster, "check_answers", lambda address: None)
    monkeypatch.setattr(session.ray, "init", lambda **_: None)
    monkeypatch.setattr(session.ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "_count_concurrent", lambda resources: 1)
    authentication.warn_unprotected.cache_clear()
    for _ in range(2):
        with session.ray_session(Resources(address="10.0.0.1:6379"), 0, tmp_path / "ray.log"):
            pass
    warning = (
        "tune-prune: warning: the Ray cluster at 10.0.0.1:6379 asks for no token: whoever reaches its ports can run "
        "code on all its machines; start it with RAY_AUTH_MODE=token\n"
    )
    assert capfd.readouterr().err == ("" if mode == "token" else warning)
