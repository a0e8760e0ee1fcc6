"""A cluster of two nodes on this machine finds what one node finds; errors for addresses without a cluster."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from deadlines import WAIT
from pandas.testing import assert_frame_equal
from searches import SPACE
from test_launch import MODULE
from toys import fault

import tune_prune
from tune_prune.common.import_path import NO_CODE
from tune_prune.distributed import cluster

ROOT = Path(tune_prune.__file__).parents[1]
HEAD = """
import sys
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
print(nodes.address, flush=True)
if sys.stdin.readline():
    nodes.remove_node(second, allow_graceful=False)
    sys.stdin.read()
nodes.shutdown()
"""
TRACE = """
def traced(weight):
    import ray
    if not ray.is_initialized():  # in the driver, before the search
        return weight.abs()
    with open(os.environ["TRACES"], "a") as file:
        file.write(f"{ray.get_runtime_context().get_node_id()} {__file__}\\n")
    end = time.monotonic() + WAIT  # for every node to begin a trial
    while len({line.split()[0] for line in open(os.environ["TRACES"])}) < int(os.environ["NODES"]):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return weight.abs()
""".replace("WAIT", str(WAIT))
FEATURES_OFF = """
[features]
early_stopping = false
warm_start = false
"""


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


@contextmanager
def two_nodes(environment: dict[str, str]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Starts two nodes of one CPU each, outside the search's directory; yields their address and how to end one."""

    def remove() -> None:
        process.stdin.write("remove\n")
        process.stdin.flush()

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", HEAD]
    with subprocess.Popen(command, cwd="/", env=environment, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process.stdout.readline().strip(), remove
        finally:
            process.stdin.close()


def search(folder: Path, environment: dict[str, str], run: str, *flags: str) -> None:
    """A search, with two trials at a time."""
    words = (
        "search --space toy.toml --force --budget 8 --sampler random --refine 0 --max-concurrent 2 --quiet --run-dir"
    )
    command = [sys.executable, "-m", "tune_prune", *words.split(), run, *flags]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=WAIT)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_search_on_two_nodes_is_the_same_as_on_one(tmp_path: Path) -> None:
    (tmp_path / "my_lab.py").write_text(MODULE + TRACE)
    space = SPACE.replace("toys:", "my_lab:").replace('["mag", "taylor1"]', '"my_lab:traced"')
    (tmp_path / "toy.toml").write_text(space + FEATURES_OFF)
    traces = tmp_path / "traces"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TRACES": str(traces), "NODES": "1"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with two_nodes(environment | {"NODES": "2"}) as (address, _):
        # without --address it is not joined, whatever the environment says
        search(tmp_path, environment | {"RAY_ADDRESS": address}, "one")
        traces.unlink()
        search(tmp_path, environment | {"NODES": "2"}, "two", "--address", address)
    nodes, modules = zip(*(line.split() for line in traces.read_text().splitlines()), strict=True)
    assert len(set(nodes)) == 2
    assert not [path for path in modules if path.startswith(str(tmp_path))]  # the module was sent to the node
    one, two = (pd.read_csv(tmp_path / run / "points.csv") for run in ("one", "two"))
    assert_frame_equal(one.drop(columns="seconds").sort_values(["trial", "round"], ignore_index=True),
                       two.drop(columns="seconds").sort_values(["trial", "round"], ignore_index=True))  # fmt: skip
    assert (tmp_path / "one" / "pareto.csv").read_text() == (tmp_path / "two" / "pareto.csv").read_text()
    assert not list((tmp_path / "two").glob(".seen*"))
