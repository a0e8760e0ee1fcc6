"""Protects Ray: a local one listens on loopback and asks for a token; a cluster that asks for none is warned about."""

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ray._private import ray_constants

from tune_prune.common.errors import UserError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Ray's variables: whether it asks for a token, the token, and the file that holds it in place of ~/.ray/auth_token."""


def check_environment() -> None:
    """Raises a `UserError` where the environment turns off the token of a local Ray, or names a file without one."""
    mode = os.environ.get(MODE, "token")
    if mode.lower() != "token":
        danger = "every program on this machine could run code through Ray"
        raise UserError(f"{MODE}={mode}: without its token {danger}; unset {MODE}, or set it to token")
    path = os.environ.get(TOKEN_PATH)
    if path and not os.environ.get(TOKEN):
        try:
            empty = not Path(path).read_bytes().strip()
        except OSError as error:
            raise UserError(f"{TOKEN_PATH}={path}: cannot be read ({error.strerror}); unset {TOKEN_PATH}") from error
        if empty:
            raise UserError(f"{TOKEN_PATH}={path}: holds no token; unset {TOKEN_PATH}")


def ensure_token() -> None:
    """Sees to it that there is a token for a local Ray, which its owner alone can read.

    It is Ray's own ~/.ray/auth_token, unless the environment has another. Where that cannot be written or read, as
    where there is no home directory, this process and its workers have a token of their own in `RAY_AUTH_TOKEN`.
    """
    if os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH):
        return
    try:
        _write_token(Path(os.environ["HOME"]) / ".ray" / "auth_token")
    except (OSError, KeyError):
        os.environ[TOKEN] = secrets.token_hex(32)


def _write_token(path: Path) -> None:
    """Writes a token with mode 0600, whole and only where there is none; takes others' permissions from one that is."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as file, suppress(FileExistsError):  # of mode 0600
            file.write(secrets.token_hex(32))
            file.flush()
            os.link(file.name, path)  # which fails where another process has just written one
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    path.read_bytes()


@contextmanager
def on_loopback() -> Iterator[None]:
    """Lets a Ray that is started meanwhile listen on 127.0.0.1 alone, as Ray itself does on Windows and macOS.

    Elsewhere all its processes would listen on every interface: Ray counts on a local one to become a cluster.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@cache
def warn_unprotected(address: str) -> None:
    """Warns on standard error, once, that a cluster has answered without a token."""
    danger = "whoever reaches its ports can run code on all its machines"
    advice = f"start it with {MODE}=token"
    print(f"tune-prune: warning: the Ray cluster at {address} asks for no token: {danger}; {advice}", file=sys.stderr)
