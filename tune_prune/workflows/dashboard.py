"""Serves Optuna's dashboard on the study of a running search, to this machine only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from tune_prune.common.errors import UserError
from tune_prune.hpo.storage import Storage
from tune_prune.workflows.local_server import serve_locally

PORT = 8080
"""The preferred port; where it is taken, any free one."""


def check_dashboard() -> None:
    """Raises a `UserError` where optuna-dashboard is not installed."""
    if find_spec("optuna_dashboard") is None:
        raise UserError("--dashboard needs optuna-dashboard: pip install 'tune-prune[dashboard]'")


@contextmanager
def serve_dashboard(storage: Storage, say: Callable[[str], None]) -> Iterator[str]:
    """Serves the dashboard while the block runs; yields its address, and passes it to `say` in a line."""
    import optuna_dashboard

    app = optuna_dashboard.wsgi(storage)
    with serve_locally(app, PORT) as address:
        say(f"dashboard: {address}")
        yield address
