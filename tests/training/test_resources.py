from typing import Any

import pytest
import torch
from toys import fault

from tune_prune.training import resources
from tune_prune.training.resources import Resources, pick_device


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"device": "tpu"}, "--device must be one of auto, cpu, cuda, got tpu"),
        ({"cpus_per_trial": 0}, "--cpus-per-trial must be above 0, got 0"),
        ({"cpus_per_trial": float("nan")}, "--cpus-per-trial must be above 0, got nan"),
        ({"gpus_per_trial": -0.5}, "--gpus-per-trial must be at least 0, got -0.5"),
        ({"max_concurrent": 0}, "--max-concurrent must be at least 1, got 0"),
        ({"workers_per_trial": 0}, "--workers-per-trial must be at least 1, got 0"),
    ],
)
def test_out_of_bounds(values: dict[str, Any], said: str) -> None:
    assert fault(lambda: Resources(**values)) == said


@pytest.mark.parametrize(
    ("gpus", "values", "device", "share"),
    [
        (0, {}, "cpu", 0),
        (0, {"device": "cpu", "gpus_per_trial": 0.0}, "cpu", 0),
        (1, {}, "cuda", 0.25),
        (1, {"device": "cpu"}, "cpu", 0),
        (1, {"gpus_per_trial": 0.0}, "cpu", 0),
        (2, {"gpus_per_trial": 2.0}, "cuda", 2),
        (2, {"device": "cuda", "gpus_per_trial": 0.5}, "cuda", 0.5),
        (0, {"device": "cuda", "gpus_per_trial": 4.0, "address": "auto"}, "cuda", 4),
        (0, {"workers_per_trial": 2, "cpus_per_trial": 0.5}, "cpu", 0),
        (2, {"workers_per_trial": 2, "cpus_per_trial": 0.5}, "cuda", 1),
        (1, {"workers_per_trial": 2, "cpus_per_trial": 0.5, "gpus_per_trial": 0.5}, "cuda", 0.5),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, gpus: int, values: dict[str, Any], device: str, share: float) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    resources = Resources(**values)
    assert (resources.torch_device, resources.gpu_share) == (device, share)


@pytest.mark.parametrize(
    ("gpus", "values", "said"),
    [
        (0, {"device": "cuda"}, "--device cuda: this machine has no GPU that torch can use; use --device cpu or auto"),
        (0, {"gpus_per_trial": 0.5}, "--gpus-per-trial 0.5: this machine has 0; ask for at most that"),
        (1, {"gpus_per_trial": 2.0}, "--gpus-per-trial 2: this machine has 1; ask for at most that"),
        (
            *(1, {"workers_per_trial": 2, "cpus_per_trial": 0.1}),
            "--workers-per-trial 2: each takes a GPU, and this machine has 1; ask for fewer, or for --gpus-per-trial "
            "below 1",
        ),
        (
            *(1, {"workers_per_trial": 3, "cpus_per_trial": 0.1, "gpus_per_trial": 0.5}),
            "--gpus-per-trial 0.5 --workers-per-trial 3: this machine has 1; ask for at most that",
        ),
        (
            *(1, {"device": "cpu", "gpus_per_trial": 1.0}),
            "--gpus-per-trial 1 with --device cpu; leave one of them out",
        ),
    ],
)
def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch, gpus: int, values: dict[str, Any], said: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    assert fault(lambda: Resources(**values)) == said


def test_more_processors_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.os, "cpu_count", lambda: 4)
    said = fault(lambda: Resources(cpus_per_trial=4.5))
    assert said == "--cpus-per-trial 4.5: this machine has 4; ask for at most that"
    assert Resources(cpus_per_trial=64, address="auto").threads == 64  # of another machine


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2)])
def test_threads(monkeypatch: pytest.MonkeyPatch, cpus: float, threads: int) -> None:
    monkeypatch.setattr(resources.os, "cpu_count", lambda: 2)
    assert Resources(cpus_per_trial=cpus).threads == threads


def test_a_gpu_of_another_machine_is_not_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = fault(lambda: Resources(device="cuda", address="auto"))
    assert said == "--device cuda: no GPU here to measure what a trial needs; give --gpus-per-trial as well"
    elsewhere = Resources(device="cuda", gpus_per_trial=1.0, address="auto")
    assert (elsewhere.torch_device, elsewhere.own_device) == ("cuda", "cpu")


def test_pick_device() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert fault(lambda: pick_device("tpu")) == "--device must be one of auto, cpu, cuda, got tpu"


@pytest.mark.parametrize("available", [False, True])
def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert pick_device("auto").type == ("cuda" if available else "cpu")
    if available:
        assert pick_device("cuda").type == "cuda"
    else:
        assert "--device cuda: this machine has no GPU" in fault(lambda: pick_device("cuda"))


def test_what_one_of_several_processes_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    together = Resources(workers_per_trial=2, cpus_per_trial=0.5)
    assert together.of_one_process == Resources(cpus_per_trial=0.5, gpus_per_trial=1.0)
    assert Resources().of_one_process == Resources()
