"""Optuna's dashboard on a run's study while the search goes on, on this machine alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tune_prune.common.errors import UserError
from tune_prune.hpo.storage import Storage

PORT = 8080
"""Where it is, if nothing else is there."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def check_dashboard() -> None:
    """A `UserError` where it is not installed."""
    if find_spec("optuna_dashboard") is None:
        raise UserError("--dashboard needs optuna-dashboard: pip install 'tune-prune[dashboard]'")


@contextmanager
def serve_dashboard(storage: Storage, say: Callable[[str], None]) -> Iterator[str]:
    """The dashboard's address while the block runs; `say` is told it."""
    import optuna_dashboard

    app = optuna_dashboard.wsgi(storage)
    try:
        server = make_server("127.0.0.1", PORT, app, _Server, _Silent)
    except OSError:  # something else is there
        server = make_server("127.0.0.1", 0, app, _Server, _Silent)
    address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    say(f"dashboard: {address}")
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
