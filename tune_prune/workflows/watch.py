"""Serves a page about run directories to this machine, and makes it again when there is something new in them."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from tune_prune.common.errors import UserError
from tune_prune.results.report.page import make_page, make_watch_script
from tune_prune.workflows.local_server import serve_locally

PORT = 8090
"""The preferred port; where it is taken, any free one."""

READ = (".csv", ".json", ".conf", ".png", ".toml")
"""The endings of the files that pages are made of."""

HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
]
"""Other pages can neither read this one nor show it within themselves."""


class LivePage:
    """A page that is made of run directories, by a function that takes the script that loads it again."""

    def __init__(self, run_dirs: Sequence[Path], make: Callable[[str], str]) -> None:
        self._run_dirs = run_dirs
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[str, bytes] = ("", b"")

    def version(self) -> str:
        """A fingerprint of the files that the page is made of; it changes when one of them does."""
        folders = [folder for run_dir in self._run_dirs for folder in (run_dir, run_dir / "results")]
        seen = [entry for folder in folders for entry in sorted(_list_files(folder))]
        return hashlib.sha256(repr(seen).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def content(self) -> bytes:
        """The page as the files are now; what keeps it from being made stands in its place."""
        with self._lock:
            version = self.version()
            if self._made[0] != version:
                self._made = version, self._build(version).encode("utf-8", "replace")
            return self._made[1]

    def _build(self, version: str) -> str:
        script = make_watch_script(version)
        try:
            return self._make(script)
        except UserError as error:  # the first round has not ended, or a file is just being replaced
            return make_page("tune-prune", [f"<h1>tune-prune</h1>\n<p>{escape(str(error))}</p>"], script)


def watch(page: LivePage, say: Callable[[str], None]) -> None:
    """Serves a page until the process is interrupted; passes its address to `say`."""
    with serve_locally(make_app(page), PORT) as address:
        say(f"{address} (Ctrl-C ends it)")
        threading.Event().wait()


def make_app(page: LivePage) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """The application that serves a page, and its version, by which the page notices that there is a newer one."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, kind, body = "404 Not Found", "text/plain", b"only the report is served; its files are in the run\n"
        if environ["REQUEST_METHOD"] != "GET":
            status, body = "405 Method Not Allowed", b""
        elif environ["PATH_INFO"] == "/":
            status, kind, body = "200 OK", "text/html; charset=utf-8", page.content()
        elif environ["PATH_INFO"] == "/version":
            status, body = "200 OK", page.version().encode()
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *HEADERS])
        return [body]

    return app


def _list_files(folder: Path) -> list[tuple[str, int, int]]:
    """Name, time of change and size of each file in a folder that pages are made of; none where there is no folder."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(READ):
                    state = entry.stat()
                    found.append((entry.path, state.st_mtime_ns, state.st_size))
    except FileNotFoundError:  # the folder, or a file that was deleted just now
        return found
    return found
