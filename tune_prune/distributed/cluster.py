"""A Ray cluster that is there already: whether it answers, what workers need, whether they see a run's files."""

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

from tune_prune.common.entrypoints import NO_CODE
from tune_prune.common.errors import UserError, format_names

ANSWER_TIMEOUT = 15.0
"""Seconds that a cluster has to answer; Ray itself would try for ten minutes."""

START_TIMEOUT = 120.0
"""Seconds that every node has to start one worker, which unpacks what `environment` names."""

FILE_SYSTEM_LAG = 5.0
"""Seconds until a network file system shows a new file everywhere, at most."""

MODULES = ["*.*", "!*.py", "!/."]
"""As in a .gitignore: what has a dot in its name and is no Python module stays here, and so does .venv."""


def check_answers(address: str) -> None:
    """A `UserError` where no Ray cluster answers at `auto` or HOST:PORT, within twenty seconds."""
    if "://" in address:
        raise UserError(f"--address {address}: give auto or HOST:PORT, and run this on one of the cluster's nodes")
    if address != "auto":
        _check_port(address)
    # Ray's own question, in a process that can be ended: a port where something else listens keeps it waiting
    asked = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    asked += [] if address == "auto" else ["--address", address]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=ANSWER_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        answer = subprocess.CompletedProcess(asked, 1, "", "")
    if "InvalidAuthToken" in answer.stderr:
        advice = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the one that it was started with"
        raise UserError(f"--address {address}: this Ray cluster asks for a token; {advice}")
    if answer.returncode != 0:
        advice = "start one with `ray start --head`, or leave --address out"
        raise UserError(f"--address {address}: no Ray cluster answers there; {advice}")


def _check_port(address: str) -> None:
    """A `UserError` where nothing at all listens: no need to wait."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers there ({error})") from error


def runtime_environment(variables: Iterable[str]) -> dict[str, Any]:
    """What workers on other machines need to run what runs here: these modules, a user's own, and `variables`.

    The modules are those of this package and of the working directory. Weights and images travel with the task.
    """
    return {
        "py_modules": [str(Path(__file__).parents[1])],
        "working_dir": str(Path.cwd()),
        "excludes": MODULES,
        "env_vars": {name: os.environ[name] for name in (*variables, NO_CODE) if name in os.environ},
    }


def check_shared_directory(directory: Path) -> None:
    """A `UserError` where a node of the joined cluster that may run trials does not see what is written here, or
    where nothing that it writes is seen here.
    """
    token = uuid.uuid4().hex
    asked = directory / f".seen-{token}"
    asked.touch()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    look = ray.remote(num_cpus=0, max_retries=0)(_reply_if_seen)
    there = {node["NodeID"]: asked.with_name(f"{asked.name}-{node['NodeID']}") for node in nodes}
    try:
        looks = [
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id_, soft=False)).remote(asked, path)
            for id_, path in there.items()
        ]
        ray.wait(looks, num_returns=len(looks), timeout=START_TIMEOUT)
        blind = [node["NodeManagerHostname"] for node in nodes if not _appears(there[node["NodeID"]])]
    finally:
        for path in [asked, *there.values()]:
            path.unlink(missing_ok=True)
    if blind:
        told = f"{format_names(blind)} does not share this directory with the machine that this runs on"
        raise UserError(f"--run-dir {directory}: {told}; name one on a file system that all nodes mount")


def _reply_if_seen(asked: Path, reply: Path) -> None:
    """On a node: answer what is asked, if it is seen."""
    if _appears(asked):
        reply.touch()


def _appears(path: Path) -> bool:
    """Whether a file that was just written, maybe elsewhere, is there."""
    until = time.monotonic() + FILE_SYSTEM_LAG
    while not path.is_file():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
