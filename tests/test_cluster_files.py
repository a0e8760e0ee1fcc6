"""The files of experiments/cluster: Ray's own schema, the shape of a RayJob, and the Slurm script, run.

The one cluster that the tests start is that of the Slurm script.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from deadlines import WAIT, scaled
from pandas.testing import assert_frame_equal
from searches import SPACE, points, searched, without_ray
from test_launch import MODULE
from typer.main import get_command

from tune_prune.cli import main

ROOT = Path(__file__).parent.parent
HERE = ROOT / "experiments" / "cluster"
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

POD = {
    "type": "object",
    "required": ["template"],
    "properties": {
        "replicas": {"type": "integer"},
        "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
        "template": {
            "type": "object",
            "required": ["spec"],
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["containers"],
                    "properties": {
                        "containers": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "object", "required": ["name", "image"]},
                        }
                    },
                }
            },
        },
    },
}
RAYJOB = {  # the part of KubeRay's definition of ray.io/v1 that this file uses
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "additionalProperties": False,
            "properties": {
                "entrypoint": {"type": "string"},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer"},
                "rayClusterSpec": {
                    "type": "object",
                    "required": ["rayVersion", "headGroupSpec", "workerGroupSpecs"],
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "headGroupSpec": POD,
                        "workerGroupSpecs": {"type": "array", "items": POD | {"required": ["groupName", "template"]}},
                    },
                },
            },
        },
    },
}


def read(name: str) -> dict:
    return yaml.safe_load((HERE / name).read_text())


def test_the_file_for_a_cloud_keeps_rays_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(read("aws.yaml"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read("aws.yaml") | {"max_workers": "four"}, schema)


def test_the_rayjob_has_its_shape_and_every_pod_the_shared_volume() -> None:
    job = read("rayjob.yaml")
    jsonschema.validate(job, RAYJOB)
    cluster = job["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        spec = group["template"]["spec"]
        [container], [volume] = spec["containers"], spec["volumes"]
        assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"]]
        assert volume["persistentVolumeClaim"] == {"claimName": "tune-prune"}


@pytest.mark.parametrize("name", ["rayjob.yaml", "slurm.sh", "README.md"])
def test_flags_exist(name: str) -> None:
    flags = {flag for one in get_command(main.app).commands["search"].params for flag in one.opts}  # type: ignore[attr-defined]
    text = (HERE / name).read_text()
    lines = [line.partition("tune-prune search")[2] for line in text.splitlines() if "tune-prune search" in line]
    assert lines
    words = " ".join(lines).replace("'", " ").split()
    assert {word for word in words if word.startswith("--")} <= flags


def test_bash_reads_the_scripts() -> None:
    entrypoint = read("rayjob.yaml")["spec"]["entrypoint"]
    for command in (["bash", "-n", HERE / "slurm.sh"], ["bash", "-nc", entrypoint]):
        assert subprocess.run(command, capture_output=True, check=False).stderr == b""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A directory with a user's own module, whose pruner notes on which node it runs, and a space that names it."""
    (tmp_path / "my_lab.py").write_text(MODULE + TRACE)
    space = SPACE.replace("toys:", "my_lab:").replace('["mag", "taylor1"]', '"my_lab:traced"')
    (tmp_path / "toy.toml").write_text(space + FEATURES_OFF)
    return tmp_path


def run_slurm_script(lab: Path, *flags: str) -> Path:
    """The run directory of a search by the Slurm script, on two nodes of one processor each: both are this machine."""
    programs = lab / "bin"
    programs.mkdir()
    for name, text in {
        "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
        "scontrol": "echo here; echo here",
        "hostname": f"echo {ray.util.get_node_ip_address()}",
        "tune-prune": f'exec {sys.executable} -m tune_prune "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    scratch = tempfile.mkdtemp(dir="/tmp")  # Ray's sockets have short names
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_CPUS_PER_TASK": "1"}
    # without the variables that Ray wrote into this process's environment
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= slurm | {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": scratch, "OMP_NUM_THREADS": "1"}
    environment |= {"TRACES": str(lab / "traces"), "NODES": "2"}
    command, log = ["bash", HERE / "slurm.sh", "--space", "toy.toml", "--quiet", "--force", *flags], lab / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=lab, env=environment, stdout=out, stderr=out, start_new_session=True) as job,
    ):
        try:
            code = job.wait(WAIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            shutil.rmtree(scratch, ignore_errors=True)
    assert code == 0, log.read_text()
    [run] = (lab / "runs").iterdir()
    assert run.name == f"slurm-{os.getpid()}"
    return run


@pytest.mark.faults  # as the other searches on several nodes
@pytest.mark.timeout(scaled(3600))
def test_a_search_by_the_slurm_script_on_two_nodes_is_the_same_as_without_ray(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_slurm_script(lab, *["--budget", "8", "--sampler", "random", "--refine", "0", "--max-concurrent", "2"])
    nodes, modules = zip(*(line.split() for line in (lab / "traces").read_text().splitlines()), strict=True)
    assert len(set(nodes)) == 2
    assert not [path for path in modules if path.startswith(str(lab))]  # the module was sent to the node
    monkeypatch.syspath_prepend(lab)
    sys.modules.pop("my_lab", None)  # that of another test
    with without_ray():
        code, alone = searched(lab / "toy.toml", "alone", budget=8, sampler="random", refine=0)
    del sys.modules["my_lab"]
    assert code == 0
    assert_frame_equal(points(alone).sort_values(["trial", "round"], ignore_index=True),
                       points(run).sort_values(["trial", "round"], ignore_index=True))  # fmt: skip
    assert (alone / "pareto.csv").read_text() == (run / "pareto.csv").read_text()
    assert not list(run.glob(".seen*"))
