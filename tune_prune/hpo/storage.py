"""Opens the storage of a study: the run's own file, or a server that several processes share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

from tune_prune.common.errors import UserError
from tune_prune.hpo.server_storage import ServerStorage, wait_for_server

Storage = RDBStorage
"""The kind of storage in which Optuna keeps a study."""

LOCK_TIMEOUT = 60
"""Seconds to wait while another program has a study.db locked."""

CONNECT_TIMEOUT = 15
"""Seconds to wait until a server takes a connection."""


def open_file(run_dir: Path) -> RDBStorage:
    """Opens the study.db of a run; raises a `UserError` where it is damaged, or locked for a minute."""
    path = run_dir / "study.db"
    try:
        # a path may hold what means something in a URL: ? % {
        url = URL.create("sqlite", database=str(path)).render_as_string()
        # a reader such as a dashboard may hold SQLite's lock for a moment
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT}})
    except (SQLAlchemyError, RuntimeError, AssertionError) as error:  # Optuna asserts what it expects in its tables
        raise UserError(
            f"{path}: cannot be used ({_first_line(error)}); put a copy back, or use a new --run-dir"
        ) from error


def open_url(url: str, say: Callable[[str], None] | None = None) -> RDBStorage:
    """Opens the storage at a URL, such as `postgresql://user:password@host/database`.

    Raises a `UserError`, which does not show the password, where that fails. Where `say` is given, opening waits for a
    server that does not answer for a while, as all later operations do, and `say` prints a line.
    """
    parsed = _parse_url(url)
    timeouts = {"postgresql": {"connect_timeout": CONNECT_TIMEOUT}, "sqlite": {"timeout": LOCK_TIMEOUT}}
    try:
        # a connection is tested before each use: a server may be restarted during a search
        engine = {"connect_args": timeouts.get(parsed.get_backend_name(), {}), "pool_pre_ping": True}
        full = parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed
        address = full.render_as_string(hide_password=False)
        opened = (
            ServerStorage(address, engine)
            if say is None
            else wait_for_server(lambda: ServerStorage(address, engine), say)
        )
    except ImportError as error:
        if parsed.get_backend_name() == "postgresql":
            raise UserError(f"{_describe_flag(parsed)}: needs a driver; pip install 'tune-prune[postgres]'") from error
        raise UserError(f"{_describe_flag(parsed)}: its driver is not installed ({error})") from error
    except SQLAlchemyError as error:
        raise UserError(f"{_describe_flag(parsed)}: cannot be opened ({_first_line(error)})") from error
    opened.say = say or opened.say
    return opened


def check_url(url: str) -> None:
    """Raises a `UserError` where no storage at a URL can be opened for writing."""
    open_url(url).engine.dispose()


def is_file_within(url: str, directory: Path) -> bool:
    """Whether a URL names an SQLite file in a directory, and nothing else."""
    parsed = _parse_url(url)
    if parsed.drivername != "sqlite" or parsed.query or not parsed.database:  # a query may make the path another URL
        return False
    return Path(parsed.database).resolve().is_relative_to(directory.resolve())


DAMAGE = (
    SQLAlchemyError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, RecursionError
)  # fmt: skip
"""What Optuna and SQLAlchemy raise for rows that they have not written."""


@contextmanager
def refuse_damage(where: str) -> Iterator[None]:
    """Raises a `UserError` where the block meets rows of a study that no search has written.

    Optuna believes what stands in its tables, and raises whatever comes of it. What a database itself reports, such as
    that it is locked or gone, is no damage.
    """
    try:
        yield
    except OperationalError:
        raise
    except DAMAGE as error:
        advice = "put a copy back, or begin again with a new --run-dir"
        raise UserError(f"{where}: damaged ({_first_line(error)}); {advice}") from error


def describe_storage(storage: RDBStorage) -> str:
    """Names a storage for a message: its file, or its URL without the password."""
    return str(
        storage.engine.url.database
        if storage.engine.url.get_backend_name() == "sqlite"
        else without_password(storage.url)
    )


def without_password(url: str) -> str:
    """A URL without its password, fit to be written to a file or a message."""
    parsed = _parse_url(url)
    kept = {key: value for key, value in parsed.query.items() if "password" not in key}
    # parsed.set(password=None) would leave the password in
    return str(URL.create(parsed.drivername, parsed.username, None, parsed.host, parsed.port, parsed.database, kept))


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername != "postgresql":  # for which `open_url` sets the driver
            parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError, ModuleNotFoundError) as error:
        form = "write postgresql://user:password@host/database"
        raise UserError(f"--storage: this is no URL of a database that SQLAlchemy knows; {form}") from error
    return parsed


def _describe_flag(url: URL) -> str:
    """The flag with the URL, for a message, without the password."""
    return f"--storage {without_password(url.render_as_string(hide_password=False))}"


def _first_line(error: Exception) -> str:
    """The first line of an error's text, or the name of its class; SQLAlchemy keeps the database's error in `orig`."""
    return (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]
