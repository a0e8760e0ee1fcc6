from dataclasses import replace
from pathlib import Path

import pytest
from toys import ended

from tune_prune.hpo.budget import SearchEnd
from tune_prune.pruning.coverage import Coverage
from tune_prune.results import records
from tune_prune.results.records import TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.workflows.selection import select_front

LIMIT = 2.0


@pytest.fixture
def info() -> RunInfo:
    facts = {"space": "toy", "model": "toys:mlp", "data": "toys:images", "seed": 0, "budget": 1, "concurrency": 1}
    rest = {"acc_tradeoff": 1.0, "dense_metric": 1.0, "shapes": {"2": (4, 2)}, "coverage": Coverage(8, 8)}
    return RunInfo(**facts, device="cpu", sampler="tpe", command="", versions={}, samples=300, **rest)  # type: ignore[arg-type]


def with_loss(record: TrialRecord, error: float) -> TrialRecord:
    """A trial whose loss is that of networks with this error."""
    return replace(record, points=[replace(record.last, val_loss=error / 20)])


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A search of 31 trials, with the checkpoints of all their rounds."""
    found = [with_loss(ended(n, (0.5 + n / 100, 1 + n / 30), limit=LIMIT), 1 + n / 30) for n in range(30)]
    found.append(with_loss(ended(30, (0.9, 0.9), limit=LIMIT), 1.9))  # counted so by luck
    for record in found:
        records.write(tmp_path, record)
        path = tmp_path / str(record.last.checkpoint)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def members_of(run_dir: Path, info: RunInfo) -> list[int]:
    """The trials on the front."""
    return [member.record.trial for member in select_front(run_dir, info, SearchEnd.BUDGET).members]


def test_a_lucky_count_is_one_among_others(run_dir: Path, info: RunInfo) -> None:
    assert members_of(run_dir, replace(info, samples=0)) == [30]
    assert len(members_of(run_dir, info)) > 20


def test_a_point_whose_weights_were_swept_is_passed_over(run_dir: Path, info: RunInfo) -> None:
    before = members_of(run_dir, info)
    (run_dir / "rounds" / "7-1.safetensors").unlink()
    assert members_of(run_dir, info) == [trial for trial in before if trial != 7]


def test_weights_that_have_to_be_there_are_missed(run_dir: Path, info: RunInfo) -> None:
    """A search keeps the checkpoints of the measured front: where one is gone, whoever reads it says so."""
    (run_dir / "rounds" / "30-1.safetensors").unlink()
    assert 30 in members_of(run_dir, info)


@pytest.mark.parametrize(
    ("end", "failure", "reason"),
    [
        (SearchEnd.BUDGET, "", "cut off"),
        (SearchEnd.ENOUGH, "", "--stop-when"),
        (SearchEnd.FAILED, "all fail", "all fail"),
    ],
)
def test_a_trial_that_was_running_was_stopped(
    run_dir: Path, info: RunInfo, end: SearchEnd, failure: str, reason: str
) -> None:
    records.write(run_dir, ended(31, (0.95, 1.9), limit=LIMIT, state="running"))
    last = select_front(run_dir, info, end, failure).records[-1]
    assert (last.trial, last.state, last.reason) == (31, "stopped", reason)
