"""URLs of storages, and the errors of those that cannot be used."""

import socket
from pathlib import Path

import pytest
from toys import fault

from tune_prune.hpo import storage

SERVER = "postgresql://me:secret@127.0.0.1"


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("postgresql://me:secret@host:5433/db", "postgresql://me@host:5433/db"),
        ("postgresql://host/db?password=secret&sslmode=require", "postgresql://host/db?sslmode=require"),
        ("postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
        ("sqlite:///x.db", "sqlite:///x.db"),
    ],
)
def test_no_password_is_written_down(url: str, bare: str) -> None:
    assert storage.without_password(url) == bare
    assert storage.without_password(bare) == bare


@pytest.mark.parametrize(
    "url", ["", "me:secret@host", "nosuch://me:secret@host/db", "postgresql://me:secret@host:port/db"]
)
def test_a_text_that_is_no_url_of_a_database(url: str) -> None:
    form = "write postgresql://user:password@host/database"
    assert fault(lambda: storage.open_url(url)) == (
        f"--storage: this is no URL of a database that SQLAlchemy knows; {form}"
    )


def test_a_server_that_does_not_answer() -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as bound:  # taken and not listening
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        message = fault(lambda: storage.open_url(f"{SERVER}:{port}/db"))
    assert message.startswith(f"--storage postgresql://me@127.0.0.1:{port}/db: cannot be opened (")
    assert "secret" not in message


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    message = fault(lambda: storage.open_url(f"sqlite:///{tmp_path}/no/such/place.db"))
    assert (
        message == f"--storage sqlite:///{tmp_path}/no/such/place.db: cannot be opened (unable to open database file)"
    )


def test_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    assert fault(lambda: storage.open_url(f"{SERVER}/db")) == (
        "--storage postgresql://me@127.0.0.1/db: needs a driver; pip install 'tune-prune[postgres]'"
    )
