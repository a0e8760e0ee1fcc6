import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drivers import Driver, measured
from optuna.trial import TrialState
from toys import ended

from tune_prune.distributed.searcher import StudySearcher
from tune_prune.hpo import early_stopping
from tune_prune.hpo.phases import Features
from tune_prune.hpo.trials import MAX_STARTS
from tune_prune.results import records
from tune_prune.results.records import TrialRecord


def test_counts_and_news(driver: Driver) -> None:
    first, second = driver.suggest(), driver.suggest()
    searcher, trials = driver.searcher, driver.trials
    assert (trials.started, len(trials.running), trials.remaining, driver.changes) == (2, 2, 40, 2)
    searcher.on_trial_result("ray0", {})
    driver.end(first, measured(first))
    assert (trials.started, len(trials.running), trials.remaining, driver.changes) == (2, 1, 39, 4)
    driver.end(second, None)
    assert (trials.started, len(trials.running), trials.remaining, driver.changes) == (2, 0, 39, 5)


def test_it_pickles_as_ray_asks(driver: Driver, tmp_path: Path) -> None:
    driver.run(2)
    assert isinstance(pickle.loads(pickle.dumps(driver.searcher)), StudySearcher)
    driver.searcher.save(str(tmp_path / "a"))
    driver.searcher.restore(str(tmp_path / "a"))
    assert {path.name for path in tmp_path.iterdir()} == {"results", "rounds"}


@pytest.mark.parametrize("before", [[], [(0.5, 1.2)]])
def test_a_worker_that_died(driver: Driver, before: list[tuple[float, float]]) -> None:
    config = driver.suggest()
    driver.end(config, ended(0, *before, state="running") if before else None, error=True)
    assert driver.state(0) == TrialState.FAIL
    written = records.read(records.record_path(driver.run_dir, 0))
    assert written == driver.trials.records[0]
    assert (written.state, written.params.to_columns()) == ("failed", config["params"])
    assert "died" in written.reason
    assert [point.compression for point in written.points] == [0.5 for _ in before]


def test_a_worker_that_died_after_its_last_word(driver: Driver) -> None:
    driver.end(driver.suggest(), ended(0, (0.9, 1.0)), error=True)
    assert driver.state(0) == TrialState.COMPLETE


def out_of_memory(config: Mapping[str, Any]) -> TrialRecord:
    """What a trial writes that found no room."""
    return replace(measured(config, "running"), reason="OutOfMemoryError: CUDA out of memory")


def test_trials_out_of_memory_beside_others_are_run_again(driver: Driver) -> None:
    driver.searcher.exclusive_device = False
    for _ in range(MAX_STARTS + 1):  # it is no fault of theirs
        one, other = driver.suggest(), driver.suggest()
        assert (one["trial"], other["trial"]) == (0, 1)
        driver.end(other, out_of_memory(other), out_of_memory="OutOfMemoryError: CUDA out of memory")
        assert driver.searcher.out_of_memory
        driver.end(one, measured(one, "running"))
        driver.searcher.restart_cut_off()
        assert not driver.searcher.out_of_memory
        assert driver.trials.remaining == 40
    assert not Driver(driver.run_dir, driver.study).trials.records
    driver.searcher.exclusive_device = True
    config = driver.suggest()
    driver.end(config, out_of_memory(config), out_of_memory="OutOfMemoryError: CUDA out of memory")
    assert not driver.searcher.out_of_memory
    record = driver.trials.records[0]
    assert (record.state, record.reason) == ("failed", "OutOfMemoryError: CUDA out of memory")
    assert driver.state(0) == TrialState.FAIL


def test_a_search_that_cannot_be_written_ends_and_goes_on(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.run(2)
    one, other, last = driver.suggest(), driver.suggest(), driver.suggest()
    assert driver.searcher.failure_reason() == ""
    driver.end(one, measured(one, "running"), io_error="[Errno 28] No space left on device: 'run'")
    assert driver.searcher.failure_reason() == "OSError: [Errno 28] No space left on device: 'run'"
    driver.end(other, measured(other))  # what is measured stays in its record
    driver.end(last, None, error=True)  # and what Ray says of those that it ends is no news
    assert not driver.searcher.should_stop(driver.ids[last["trial"]])
    assert sorted(driver.trials.records) == [0, 1]
    resumed = Driver(driver.run_dir, driver.study)
    assert sorted(resumed.trials.records) == [0, 1, other["trial"]]
    assert [config["trial"] for config in resumed.run(3)] == [one["trial"], last["trial"], 5]


def test_a_study_that_takes_no_trial_ends_the_search(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise OSError("server closed the connection")

    monkeypatch.setattr(driver.trials._trial_store, "start", gone)
    assert driver.searcher.suggest("one") == "FINISHED"
    assert driver.searcher.failure_reason() == "OSError: server closed the connection"


@pytest.mark.parametrize("call", ["on_trial_result", "on_trial_complete", "should_stop"])
def test_what_the_search_itself_raises_breaks_it(driver: Driver, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: Any) -> None:
        raise OSError("database or disk is full")

    config = driver.suggest()
    records.write(driver.run_dir, measured(config, "complete" if call == "on_trial_complete" else "running"))
    monkeypatch.setattr(driver.searcher, "_on_change", full)
    monkeypatch.setattr(driver.trials._trial_store, "finish", full)
    monkeypatch.setattr(early_stopping, "reason_to_stop", full)
    object.__setattr__(driver.trials.early_stopping._settings, "features", Features())
    name = driver.ids[config["trial"]]
    assert not (
        driver.searcher.should_stop(name) if call == "should_stop" else getattr(driver.searcher, call)(name, {})
    )
    assert str(driver.searcher.fatal_error) == "database or disk is full"
    first = driver.searcher.fatal_error
    driver.searcher.on_trial_result(name, {})
    driver.searcher.on_trial_complete(name, {}, error=True)
    assert driver.searcher.fatal_error is first
