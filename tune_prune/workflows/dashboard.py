"""Serves Optuna's dashboard on the study of a running search, to this machine only."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tune_prune.common.errors import UserError
from tune_prune.hpo.storage import Storage

PORT = 8080
"""The preferred port; where it is taken, any free one."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def check_dashboard() -> None:
    """Raises a `UserError` where optuna-dashboard is not installed."""
    if find_spec("optuna_dashboard") is None:
        raise UserError("--dashboard needs optuna-dashboard: pip install 'tune-prune[dashboard]'")


@contextmanager
def serve_dashboard(storage: Storage, say: Callable[[str], None]) -> Iterator[str]:
    """Serves the dashboard while the block runs; yields its address, and passes it to `say` in a line."""
    import optuna_dashboard

    app = optuna_dashboard.wsgi(storage)
    try:
        server = make_server("127.0.0.1", PORT, app, _Server, _Silent)
    except OSError:  # another program has the port
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
