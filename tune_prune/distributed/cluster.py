"""Checks a running Ray cluster, and says what its workers need: code, variables, and a shared run directory."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_prune.common.errors import UserError, format_names
from tune_prune.common.import_path import NO_CODE, is_code_refused

ANSWER_TIMEOUT = 60.0
"""Seconds to wait for a cluster's answer, on a machine that may be busy; Ray itself would try for ten minutes."""

START_TIMEOUT = 300.0
"""Seconds to wait until every node, busy as it may be, has started one worker and unpacked its environment."""

FILE_SYSTEM_LAG = 5.0
"""Seconds, at most, until a network file system shows a new file on every node."""

MODULES = ["*.*", "!*.py", "!/."]
"""Patterns of files that are not sent to workers, as in a .gitignore: all names with a dot but Python modules, so that
.venv is not sent either."""


def check_answers(address: str) -> None:
    """Raises a `UserError` where no Ray cluster answers at `auto` or HOST:PORT within a minute or so."""
    if "://" in address:
        raise UserError(f"--address {address}: give auto or HOST:PORT, and run this on one of the cluster's nodes")
    if address != "auto":
        _check_port(address)
    # Ray's own check, in a process that can be ended: where something else listens at the port, it waits for ever
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "health-check"]
    command += [] if address == "auto" else ["--address", address]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        answer = subprocess.CompletedProcess(command, 1, "", "")
    if "InvalidAuthToken" in answer.stderr:
        advice = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the one that it was started with"
        raise UserError(f"--address {address}: this Ray cluster asks for a token; {advice}")
    if answer.returncode != 0:
        advice = "start one with `ray start --head`, or leave --address out"
        raise UserError(f"--address {address}: no Ray cluster answers there; {advice}")


def _check_port(address: str) -> None:
    """Raises a `UserError` at once where nothing listens at the port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers there ({error})") from error


def runtime_environment(variables: Iterable[str]) -> dict[str, Any]:
    """Ray's runtime environment for workers on other machines: Python modules and environment `variables`.

    The modules are those of this package and, unless `--no-code` refuses them, of the working directory. Weights and
    images travel with the task.
    """
    return {
        "py_modules": [str(Path(__file__).parents[1])],
        **({} if is_code_refused() else {"working_dir": str(Path.cwd())}),
        "excludes": MODULES,
        "env_vars": {name: os.environ[name] for name in (*variables, NO_CODE) if name in os.environ},
    }


def check_shared_directory(directory: Path) -> None:
    """Raises a `UserError` where a node of the joined cluster does not share a directory with this machine.

    Every node that may run trials looks for a file that was written here, and writes a reply that is looked for here.
    """
    token = uuid.uuid4().hex
    request = directory / f".seen-{token}"
    request.touch()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    look = ray.remote(num_cpus=0, max_retries=0)(_reply_if_seen)
    replies = {node["NodeID"]: request.with_name(f"{request.name}-{node['NodeID']}") for node in nodes}
    try:
        looks = [
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id_, soft=False)).remote(request, reply)
            for id_, reply in replies.items()
        ]
        ray.wait(looks, num_returns=len(looks), timeout=START_TIMEOUT)
        blind = [node["NodeManagerHostname"] for node in nodes if not _appears(replies[node["NodeID"]])]
    finally:
        for path in [request, *replies.values()]:
            path.unlink(missing_ok=True)
    if blind:
        fault = f"{format_names(blind)} does not share this directory with the machine that this runs on"
        raise UserError(f"--run-dir {directory}: {fault}; name one on a file system that all nodes mount")


def _reply_if_seen(request: Path, reply: Path) -> None:
    """Writes the reply where the request is seen; runs on a node."""
    if _appears(request):
        reply.touch()


def _appears(path: Path) -> bool:
    """Whether a file, which another machine may just have written, is seen here within `FILE_SYSTEM_LAG`."""
    deadline = time.monotonic() + FILE_SYSTEM_LAG
    while not path.is_file():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
