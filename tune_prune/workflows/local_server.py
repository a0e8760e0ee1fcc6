"""Serves web pages to the browsers of this machine, and to nobody else."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK = "127.0.0.1"

HOSTS = (LOOPBACK, "localhost", "::1")
"""What a browser on this machine calls it, whatever the port: a tunnel may end at another one."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve_locally(app: WSGIApplication, port: int) -> Iterator[str]:
    """Serves an application on the loopback address while the block runs; yields its address.

    `port` is the preferred one; where it is taken, any free one. Requests that name another host are refused: by a name
    that resolves to 127.0.0.1, a page from elsewhere would read what is served here (DNS rebinding).
    """

    def refuse_others(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not _is_local(environ.get("HTTP_HOST", "")):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"served to this machine alone: use the address that was printed\n"]
        return app(environ, start_response)

    try:
        server = make_server(LOOPBACK, port, refuse_others, _Server, _Silent)
    except OSError:  # another program has the port
        server = make_server(LOOPBACK, 0, refuse_others, _Server, _Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _is_local(host: str) -> bool:
    """Whether the Host header of a request names this machine."""
    try:
        return urlsplit(f"//{host}").hostname in HOSTS
    except ValueError:
        return False
