import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ended

from tune_prune.hpo import checkpoint_store
from tune_prune.hpo.checkpoint_store import CheckpointStore
from tune_prune.results.constraints import Constraints
from tune_prune.results.estimates import Estimates
from tune_prune.results.front import find_front
from tune_prune.results.records import TrialRecord

LIMIT = 2.0

levels = st.sampled_from([0.5, 0.9, 0.99]) | st.floats(0, 0.99)
errors = st.sampled_from([0.5, 1.5, 75.0]) | st.floats(0, 90)
trials = st.lists(st.lists(st.tuples(levels, errors), min_size=1, max_size=3), min_size=1, max_size=12)


def files(run_dir: Path, record: TrialRecord) -> list[Path]:
    """The files that a trial's worker wrote."""
    return [run_dir / point.checkpoint for point in record.points if point.checkpoint]


def written(run_dir: Path, *records: TrialRecord) -> None:
    """Writes the trials' files."""
    for path in [path for record in records for path in files(run_dir, record)]:
        path.parent.mkdir(exist_ok=True)
        path.touch()


def left(run_dir: Path) -> list[str]:
    """The files that are left, without their suffix."""
    return sorted(path.stem for path in (run_dir / "rounds").iterdir())


@pytest.fixture(autouse=True)
def _keep_none_for_warm_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps no rounds for warm starts, but in the test of them."""
    monkeypatch.setattr(checkpoint_store, "MIN_KEPT", 0)


def test_only_the_front_stays(tmp_path: Path) -> None:
    records = [
        ended(0, (0.5, 1.0), (0.9, 1.5), parent=9),
        ended(1, (0.5, 1.2), (0.8, 1.5), parent=9),
        ended(2, (0.99, 1.9), (0.999, 9.0), state="failed"),
    ]
    written(tmp_path, *records)
    CheckpointStore(tmp_path).sweep(records, [])
    assert left(tmp_path) == ["0-1", "0-2", "2-1"]


def test_the_front_stays_by_estimates_and_as_it_was_measured(tmp_path: Path) -> None:
    """A count that was lucky dominates all others, and none once it is estimated."""
    estimates, records = Estimates(Constraints(LIMIT), samples=300), []
    for number in range(31):
        compression, error, loss = (0.9, 0.9, 1.9) if number == 30 else (0.5 + number / 100, *[1 + number / 30] * 2)
        record = ended(number, (compression, error), limit=LIMIT)
        records.append(replace(record, points=[replace(record.last, val_loss=loss / 20)]))
    written(tmp_path, *records)
    for record in records:
        estimates.add(record)
    CheckpointStore(tmp_path, estimates).sweep(records, [])
    chosen = find_front([estimates.records[record.trial] for record in records])
    assert {member.record.trial for member in chosen} > {0, 25}
    assert [member.record.trial for member in find_front(records)] == [30]
    assert {int(name.split("-")[0]) for name in left(tmp_path)} == {30, *(member.record.trial for member in chosen)}


def test_checkpoints_in_use_stay(tmp_path: Path) -> None:
    # the further in the list, the worse in both
    records = [ended(number, (0.9 - number / 100, 1.1 + number / 10)) for number in range(4)]
    written(tmp_path, *records)
    CheckpointStore(tmp_path).sweep(records, ["rounds/2-1.safetensors"])
    assert left(tmp_path) == ["0-1", "2-1"]


def test_rounds_for_warm_starts_are_kept_front_by_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_store, "MIN_KEPT", 3)
    one, other, dominated = ended(0, (0.5, 1.0), (0.9, 1.5)), ended(1, (0.4, 1.1), (0.8, 1.6)), ended(2, (0.3, 1.9))
    records = [replace(record, state="stopped") for record in (one, other, dominated)]
    written(tmp_path, *records)
    CheckpointStore(tmp_path).sweep(records, [])
    assert left(tmp_path) == ["0-1", "0-2", "1-1", "1-2"]  # a front is kept whole


def test_files_of_running_trials_and_of_others_are_left_alone(tmp_path: Path) -> None:
    running, other = ended(1, (0.1, 1.9), (0.2, 1.9)), tmp_path / "rounds" / "mine.txt"
    records = [ended(0, (0.9, 0.1))]
    written(tmp_path, running, *records)
    other.touch()
    CheckpointStore(tmp_path).sweep(records, [])
    assert left(tmp_path) == ["0-1", "1-1", "1-2", "mine"]


def test_a_file_that_is_missing_already(tmp_path: Path) -> None:
    missing, present = ended(0, (0.9, 0.1)), ended(1, (0.8, 0.2))
    written(tmp_path, present)
    CheckpointStore(tmp_path).sweep([missing, present], [])
    assert left(tmp_path) == ["1-1"]  # the missing one, which dominates it, does not displace it


@settings(max_examples=60)
@given(trials, st.integers(1, 4), st.randoms(use_true_random=False))
def test_whatever_order_trials_end_in_no_file_is_missed(
    measured: list[list[tuple[float, float]]], workers: int, order: random.Random
) -> None:
    every = [ended(number, *points, limit=LIMIT) for number, points in enumerate(measured)]
    with TemporaryDirectory() as folder:
        run_dir = Path(folder)
        store = CheckpointStore(run_dir)
        found: list[TrialRecord] = []
        running, waiting, in_use = every[:workers], every[workers:], set[str]()
        written(run_dir, *running)
        while running:
            found.append(running.pop(order.randrange(len(running))))
            store.sweep(found[-1:], in_use)
            for member in find_front([*found, *running]):
                assert (run_dir / str(member.point.checkpoint)).is_file()
            present = [path for record in found for path in files(run_dir, record) if path.is_file()]
            if present and order.random() < 0.3:
                in_use.add(f"rounds/{order.choice(present).name}")
            assert all((run_dir / name).is_file() for name in in_use)
            running += waiting[:1]
            written(run_dir, *waiting[:1])
            waiting = waiting[1:]
        assert len(found) == len(every)
