"""Jobs on a stand-in for Ray; test_sensitivity_command.py runs them on Ray itself."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import ended

from tune_prune.distributed import parallel
from tune_prune.results.constraints import Constraints
from tune_prune.results.front import Member
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import ERROR
from tune_prune.tasks.task import Task
from tune_prune.training.resources import Resources
from tune_prune.workflows.confirm import confirm_front, list_repetitions, read_confirmations, run_repetition

CPU = torch.device("cpu")
HALF = 512 / 1088
PARAMS = TrialParams(
    {"2": 0.5, "4": 0.0}, "mag", training={"rounds": 1, "final_steps": 150, "lr": 0.1, "batch_size": 16}
)


def double(task: Task, job: int, device: torch.device, cached: Mapping[str, Any]) -> int:
    if job == 0:
        raise ZeroDivisionError("in a job")
    assert (task.model, device.type, cached) == ("toys:mlp", "cpu", {})
    return 2 * job


class Ray:
    """A stand-in for Ray: a job runs in this process when it is waited for, the newest first."""

    class RayError(Exception):
        """As Ray has it: `cause` is what the job raised."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(RayError=self.RayError)
        self.started, self.ended, self.stored, self.most = 0, 0, 0, 0

    @contextmanager
    def started_ray(self, resources: Resources, nbytes: int, log: Path) -> Iterator[int]:
        self.started += 1
        yield 2
        self.ended += 1

    def put(self, value: object) -> object:
        self.stored += 1
        return value

    def remote(self, **resources: object) -> Callable[[Callable[..., object]], object]:
        def submit(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
            def ready() -> object:
                try:
                    return function(*arguments)
                except Exception as error:
                    wrapped = self.RayError("with a traceback")
                    wrapped.cause = error  # type: ignore[attr-defined]
                    raise wrapped from error

            return ready

        return lambda function: SimpleNamespace(remote=lambda *arguments: submit(function, *arguments))

    def wait(self, running: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(running))
        return running[-1:], running[:-1]

    def get(self, ready: Callable[[], object]) -> object:
        return ready()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setattr(parallel, "ray", made)
    monkeypatch.setattr(parallel, "ray_session", made.started_ray)
    return made


def workers(task: Task, tmp_path: Path, is_stopped: Callable[[], bool] = lambda: False) -> Any:
    return parallel.worker_pool(task, Resources(device="cpu"), {}, tmp_path / "ray.log", is_stopped)


def test_ray_is_started_once_and_only_for_jobs(toy_task: Task, tmp_path: Path, ray: Ray) -> None:
    with workers(toy_task, tmp_path) as parallel_map:
        assert list(parallel_map(double, [])) == []
        assert ray.started == 0
        assert sorted(parallel_map(double, [1, 2, 3, 4])) == [(1, 2), (2, 4), (3, 6), (4, 8)]
        assert list(parallel_map(double, [5])) == [(5, 10)]
        assert (ray.started, ray.stored, ray.ended, ray.most) == (1, 1, 0, 2)
    assert ray.ended == 1


def test_a_job_that_raises_is_yielded_with_what_it_raised(toy_task: Task, tmp_path: Path, ray: Ray) -> None:
    with workers(toy_task, tmp_path) as parallel_map:
        found = dict(parallel_map(double, [1, 0, 2]))
        assert isinstance(found.pop(0), ZeroDivisionError)
        assert found == {1: 2, 2: 4}
        rest = parallel.collect_results(parallel_map(double, [1, 0, 2]))
        assert {next(rest), next(rest)} == {2, 4}
        with pytest.raises(RuntimeError, match="1 failed; 0: ZeroDivisionError: in a job"):
            next(rest)


def test_it_ends_early_when_stopped(toy_task: Task, tmp_path: Path, ray: Ray) -> None:
    seen: list[int] = []
    with workers(toy_task, tmp_path, lambda: len(seen) >= 2) as parallel_map:
        for job, _ in parallel_map(double, [1, 2, 3, 4, 5]):
            seen.append(job)
        assert len(seen) == 2
        assert list(parallel_map(double, [6])) == []


def test_a_front_is_confirmed_on_workers(toy_task: Task, tmp_path: Path, ray: Ray) -> None:
    record = ended(0, (HALF, 1.0))
    member = Member("001", replace(record, params=PARAMS), record.last)
    with workers(toy_task, tmp_path) as parallel_map:
        assert confirm_front(tmp_path, [member], {}, ERROR, seed=0, count=3, parallel_map=parallel_map) == []
    found = read_confirmations(tmp_path, [member], {}, seed=0, limits=Constraints(20.0))
    jobs = list_repetitions(member, {}, 0, 3)
    assert found["001"].metrics == tuple(run_repetition(toy_task, job, CPU, {})["val_error"] for job in jobs)
