"""Where a study is kept: the run's own file, or a server that several processes share."""

from pathlib import Path

from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from tune_prune.common.errors import UserError

Storage = RDBStorage
"""What Optuna keeps a study in."""

LOCK_TIMEOUT = 60
"""Seconds that another program may hold a study.db."""

CONNECT_TIMEOUT = 15
"""Seconds that a server has to take a connection."""


def open_file(run_dir: Path) -> RDBStorage:
    """The study.db of a run; a `UserError` where it is damaged, or locked for a minute."""
    path = run_dir / "study.db"
    try:
        # a reader such as a dashboard may hold SQLite's lock for a moment
        return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT}})
    except (SQLAlchemyError, RuntimeError, AssertionError) as error:  # Optuna asserts what it finds in its tables
        raise UserError(
            f"{path}: cannot be used ({_reason(error)}); put a copy back, or use a new --run-dir"
        ) from error


def describe_storage(storage: RDBStorage) -> str:
    """What a storage is called in a message."""
    return str(
        storage.engine.url.database
        if storage.engine.url.get_backend_name() == "sqlite"
        else without_password(storage.url)
    )


def open_url(url: str) -> RDBStorage:
    """The storage at a URL, such as `postgresql://user:password@host/database`; a `UserError` without its password."""
    at = _parse_url(url)
    timeout = {"postgresql": {"connect_timeout": CONNECT_TIMEOUT}, "sqlite": {"timeout": LOCK_TIMEOUT}}.get(
        at.get_backend_name(), {}
    )
    try:
        # asked whether it is alive before each use: a server may start anew during a search
        engine = {"connect_args": timeout, "pool_pre_ping": True}
        full = at.set(drivername="postgresql+psycopg") if at.drivername == "postgresql" else at
        return RDBStorage(full.render_as_string(hide_password=False), engine_kwargs=engine)
    except ImportError as error:
        if at.get_backend_name() == "postgresql":
            raise UserError(f"{_flag(at)}: needs a driver; pip install 'tune-prune[postgres]'") from error
        raise UserError(f"{_flag(at)}: its driver is not installed ({error})") from error
    except SQLAlchemyError as error:
        raise UserError(f"{_flag(at)}: cannot be opened ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]


def check_url(url: str) -> None:
    """A `UserError` where there is no storage at a URL, or none that may be written."""
    open_url(url).engine.dispose()


def without_password(url: str) -> str:
    """A URL without its password, fit to be written down."""
    at = _parse_url(url)
    kept = {key: value for key, value in at.query.items() if "password" not in key}
    # at.set(password=None) would leave it as it is
    return str(URL.create(at.drivername, at.username, None, at.host, at.port, at.database, kept))


def _parse_url(url: str) -> URL:
    try:
        at = make_url(url)
        if at.drivername != "postgresql":  # whose driver is ours to choose
            at.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError, ModuleNotFoundError) as error:
        form = "write postgresql://user:password@host/database"
        raise UserError(f"--storage: this is no URL of a database that SQLAlchemy knows; {form}") from error
    return at


def _flag(at: URL) -> str:
    return f"--storage {without_password(at.render_as_string(hide_password=False))}"
