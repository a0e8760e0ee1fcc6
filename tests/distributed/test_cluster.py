"""Errors for addresses where no cluster can be used; test_cluster_files.py searches on a cluster."""

import os
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from toys import fault

from tune_prune.common.import_path import NO_CODE
from tune_prune.distributed import cluster


@pytest.mark.parametrize("port", ["closed", "1000000", "here"])
def test_an_address_where_nothing_listens_is_refused_at_once(port: str) -> None:
    with socket.socket() as bound:  # taken and not listening: nobody else can answer there
        bound.bind(("127.0.0.1", 0))
        number = str(bound.getsockname()[1]) if port == "closed" else port
        message = fault(lambda: cluster.check_answers(f"127.0.0.1:{number}"))
        assert message.startswith(f"--address 127.0.0.1:{number}: no Ray cluster answers there")


def test_a_port_where_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_TIMEOUT", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        advice = "start one with `ray start --head`, or leave --address out"
        assert fault(lambda: cluster.check_answers(address)) == (
            f"--address {address}: no Ray cluster answers there; {advice}"
        )


def test_a_cluster_that_asks_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "RPC error: InvalidAuthToken: Authentication token is missing or incorrect"
    done = subprocess.CompletedProcess([], 1, "", message)
    monkeypatch.setattr(cluster.subprocess, "run", lambda *_, **__: done)
    advice = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the one that it was started with"
    assert (
        fault(lambda: cluster.check_answers("auto")) == f"--address auto: this Ray cluster asks for a token; {advice}"
    )


def test_the_working_directory_is_not_sent_where_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_CODE, "")
    assert cluster.runtime_environment([])["working_dir"] == os.getcwd()
    monkeypatch.setenv(NO_CODE, "1")
    assert "working_dir" not in (environment := cluster.runtime_environment([]))
    assert environment["env_vars"] == {NO_CODE: "1"}


def test_an_address_of_ray_client() -> None:
    assert fault(lambda: cluster.check_answers("ray://10.0.0.1:10001")) == (
        "--address ray://10.0.0.1:10001: give auto or HOST:PORT, and run this on one of the cluster's nodes"
    )


def test_a_node_that_does_not_share_the_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"NodeID": f"{number:056x}", "NodeManagerHostname": name, "Alive": alive, "Resources": {"CPU": cpus}}
        for number, (name, alive, cpus) in enumerate([("here", True, 4), ("far", True, 4), ("dead", False, 4)])
    ]

    class Far:
        """A remote function; on the second node it sees no file and writes none."""

        def options(self, scheduling_strategy: object) -> SimpleNamespace:
            far = scheduling_strategy.node_id == nodes[1]["NodeID"]  # type: ignore[attr-defined]
            return SimpleNamespace(remote=(lambda *_: None) if far else cluster._reply_if_seen)

    def remote(**options: object) -> object:
        return lambda function: Far()

    monkeypatch.setattr(cluster, "FILE_SYSTEM_LAG", 0.1)
    fake = SimpleNamespace(nodes=lambda: nodes, remote=remote, wait=lambda *_, **__: None)
    monkeypatch.setattr(cluster, "ray", fake)
    reason = "far does not share this directory with the machine that this runs on"
    advice = "name one on a file system that all nodes mount"
    assert fault(lambda: cluster.check_shared_directory(tmp_path)) == f"--run-dir {tmp_path}: {reason}; {advice}"
    assert list(tmp_path.iterdir()) == []
