"""The files of experiments/cluster: Ray's own schema, the shape of a RayJob, and the Slurm script, run."""

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
import pandas as pd
import pytest
import ray
import yaml
from deadlines import WAIT
from searches import SPACE
from test_launch import MODULE
from typer.main import get_command

from tune_prune.cli import main

ROOT = Path(__file__).parent.parent
HERE = ROOT / "experiments" / "cluster"
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


def test_the_slurm_script_runs_with_stand_ins_for_slurm(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
        "scontrol": "echo here; echo here",
        "hostname": f"echo {ray.util.get_node_ip_address()}",
        "tune-prune": f'exec {sys.executable} -m tune_prune "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "my_lab.py").write_text(MODULE)
    (tmp_path / "toy.toml").write_text(SPACE.replace("toys:", "my_lab:"))
    scratch = tempfile.mkdtemp(dir="/tmp")  # Ray's sockets have short names
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_CPUS_PER_TASK": "1"}
    # without the variables that Ray wrote into this process's environment
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = inherited | slurm | {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": scratch}
    command = ["bash", HERE / "slurm.sh", "--space", "toy.toml", "--budget", "3", "--quiet", "--force"]
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out, start_new_session=True) as job,
    ):
        try:
            code = job.wait(WAIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            shutil.rmtree(scratch, ignore_errors=True)
    assert code == 0, log.read_text()
    [run] = (tmp_path / "runs").iterdir()
    assert run.name == f"slurm-{os.getpid()}"
    assert len(pd.read_csv(run / "trials.csv")) == 3
