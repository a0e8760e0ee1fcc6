import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from drivers import LIMIT, PARAMETERS, REFINE, Driver, level, measured
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from toys import ended, fault

from tune_prune.common.errors import HeldError
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.phases import Features, Refinement
from tune_prune.hpo.refinement import MIN_WEIGHTS_RATIO, refinement_params
from tune_prune.hpo.run_lock import join_run, lock_run
from tune_prune.hpo.scheduler import coarse_to_fine
from tune_prune.hpo.trial_store import MAX_STARTS
from tune_prune.results import records
from tune_prune.results.trial_params import TrialParams

# What is written to the study


@pytest.mark.parametrize(("error", "feasible"), [(1.5, True), (2.0, True), (2.1, False), (50.0, False)])
def test_the_constraint_is_there_before_the_values(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, error: float, feasible: bool
) -> None:
    violations: list[float] = []
    original = driver.study.tell

    def spy(number: int, *values: Any, **more: Any) -> Any:
        violations.extend(driver.study.trials[number].constraints.values())
        return original(number, *values, **more)

    monkeypatch.setattr(driver.study, "tell", spy)
    driver.end(driver.suggest(), ended(0, (0.9, error)))
    trial = driver.study.trials[0]
    assert trial.state == TrialState.COMPLETE
    assert trial.values == [pytest.approx(1.0), error]
    assert list(trial.constraints.values()) == violations == [pytest.approx(error - LIMIT)]  # positive: infeasible
    assert (violations[0] <= 0) == feasible


def test_a_process_that_goes_between_the_two(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def gone(*_: Any) -> None:
        raise OSError("database or disk is full")

    monkeypatch.setattr(driver.study, "tell", gone)
    driver.end(config := driver.suggest(), measured(config))
    assert (driver.state(0), len(driver.study.trials[0].constraints)) == (TrialState.RUNNING, 1)
    monkeypatch.undo()
    Driver(driver.run_dir, driver.study)
    assert driver.state(0) == TrialState.COMPLETE
    assert not recwarn.list


def test_a_failed_trial(driver: Driver) -> None:
    driver.end(driver.suggest(), replace(ended(0, (0.9, 1.0), state="failed"), reason="ScoreError: not finite"))
    assert driver.state(0) == TrialState.FAIL
    assert driver.trials.records[0].reason == "ScoreError: not finite"


def test_no_nan_reaches_the_study(driver: Driver) -> None:
    driver.end(driver.suggest(), ended(0, (0.9, math.nan), state="failed"))
    assert driver.state(0) == TrialState.FAIL
    assert driver.study.trials[0].values is None
    driver.run(12)  # and goes on


# What it suggests


def test_guesses_come_first_and_in_order(tmp_path: Path, study: optuna.Study) -> None:
    initial_points = [{"ratio/2": ratio, "pruner": "taylor1"} for ratio in (0.5, 0.9, 0.7)]
    configs = Driver(tmp_path, study, initial_points=initial_points).run(6)
    assert [config["params"]["ratio/2"] for config in configs[:3]] == [0.5, 0.9, 0.7]
    assert all(config["params"]["pruner"] == "taylor1" for config in configs[:3])
    assert not {config["params"]["ratio/2"] for config in configs[3:]} & {0.5, 0.7, 0.9}


def test_configs_hold_every_parameter_and_a_seed_of_their_own(driver: Driver) -> None:
    configs = driver.run(14)
    assert [config["trial"] for config in configs] == list(range(14))
    assert all(list(config["params"]) == list(PARAMETERS) for config in configs)
    assert all(config["params"]["ratio/2"] in PARAMETERS["ratio/2"] for config in configs)  # type: ignore[operator]
    assert len({config["seed"] for config in configs}) == 14


@pytest.mark.parametrize("refine", [Refinement(), REFINE])
@pytest.mark.parametrize("split", [0, 5, 13])
def test_the_seed_decides_also_where_another_process_goes_on(tmp_path: Path, refine: Refinement, split: int) -> None:
    def new(name: str, seed: int) -> Driver:
        return Driver(tmp_path / name, optuna.create_study(directions=["maximize", "minimize"]), refine, seed)

    whole = new("a", 3).run(16)
    assert whole != new("b", 4).run(16)
    first = new("c", 3)
    started = first.run(split)
    first.suggest()  # and the process is killed
    later = Driver(first.run_dir, first.study, refine)
    assert started + later.run(16 - split) == whole


# Finishing


def until_refinement(driver: Driver) -> dict[str, Any]:
    """The first refinement, started; all before it have ended."""
    while (config := driver.suggest())["refines"] is None:
        driver.end(config, measured(config))
    return config


def test_finishing_has_another_s_ratios_and_prunes_little_by_little(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, REFINE)
    configs = driver.run(40)
    refinements = [config for config in configs if config["refines"] is not None]
    assert len(refinements) == 10
    assert len({config["refines"] for config in refinements}) == 10
    for config in refinements:
        other = configs[config["refines"]]
        expected = refinement_params(REFINE, TrialParams.from_columns(other["params"]), {})
        assert config["params"] == expected.to_columns()
        assert config["start"] is None  # nothing is inherited here
        assert config["seed"] != other["seed"]
    assert driver.trials.refinements == {config["trial"]: config["refines"] for config in refinements}


def test_finishing_begins_where_several_times_the_weights_are_left(tmp_path: Path, study: optuna.Study) -> None:
    levels = [level(r) for r in (0.3, 0.6, 0.75, 0.8)]
    driver = Driver(tmp_path, study, REFINE, levels=levels, features=Features(early_stopping=False), budget=Budget(12))
    driver.run(4)  # 0.3, 0.75, 0.6 and 0.8
    config = until_refinement(driver)
    settings = config["params"]["ratio/2"]
    start = config["start"]
    assert 1 - start.ratios["2"] >= MIN_WEIGHTS_RATIO * (1 - settings) - 1e-9
    refined = driver.trials.records[config["refines"]]
    assert config["params"] == refinement_params(REFINE, refined.params, start.ratios).to_columns()
    nearer = [p.ratios["2"] for r in driver.trials.records.values() for p in r.points]
    assert max(r for r in nearer if 1 - r >= MIN_WEIGHTS_RATIO * (1 - settings)) == start.ratios["2"]


def test_nothing_is_finished_that_would_not_end_in_time(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, REFINE, refinement_seconds=10.0, budget=Budget(40, seconds=1e6))
    driver.run(20)
    done = len(driver.trials.refinements)
    assert done > 0
    driver.budget.reserve = 1e6  # no time is left
    driver.run(20)
    assert len(driver.trials.refinements) == done


def test_a_finishing_trial_that_was_cut_off_finishes_the_same_parent(tmp_path: Path, study: optuna.Study) -> None:
    inherits = Features(early_stopping=False)
    driver = Driver(tmp_path, study, REFINE, features=inherits)
    config = until_refinement(driver)
    later = Driver(tmp_path, study, REFINE, features=inherits)
    assert later.trials.refinements == {config["trial"]: config["refines"]}
    assert (tmp_path / config["start"].checkpoint).is_file()
    assert later.suggest() == config


def test_a_failed_finish_keeps_its_parent(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, REFINE, features=Features(early_stopping=False))
    config = until_refinement(driver)
    driver.end(config, None, error=True)
    record, start = driver.trials.records[config["trial"]], config["start"]
    assert (record.parent, record.parent_round, record.refines) == (start.trial, start.round, config["refines"])


# Levels


def test_levels_follow_the_guesses_until_one_is_too_much(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, initial_points=[level(0.95)], levels=[level(r) for r in (0.2, 0.5, 0.6, 0.7, 0.8)])
    ratios = [config["params"]["ratio/2"] for config in driver.run(7)]
    # coarse first; without refinement the limit is what counts: 0.8 and 0.6 are beyond it, and so 0.7 is left out
    assert ratios[:5] == [0.95, 0.2, 0.8, 0.6, 0.5]
    assert 0.7 not in ratios
    assert [1 + 3 * r**2 <= LIMIT for r in (0.5, 0.6)] == [True, False]


def test_levels_go_on_in_another_process(tmp_path: Path, study: optuna.Study) -> None:
    levels = [level(r) for r in (0.2, 0.3, 0.4, 0.5)]
    driver = Driver(tmp_path, study, levels=levels)
    driver.run(1)
    driver.suggest()
    later = Driver(tmp_path, study, levels=levels)
    assert [config["params"]["ratio/2"] for config in later.run(3)] == [0.4, 0.3, 0.5]


@given(st.integers(0, 40))
def test_coarse_to_fine(count: int) -> None:
    order = coarse_to_fine(count)
    assert sorted(order) == list(range(count))
    quarter = order[: (count + 3) // 4]
    assert quarter == list(range(0, count, 4))
    assert all(number % 2 == 0 for number in order[: (count + 1) // 2])


# Where trials begin


def test_a_trial_begins_at_the_nearest_round_that_it_contains(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(
        tmp_path, study, levels=[level(r) for r in (0.4, 0.45, 0.5, 0.56)], features=Features(early_stopping=False)
    )
    starts = [config["start"] for config in driver.run(4)]  # of 0.4, 0.5, 0.45 and 0.56
    assert [start and (start.trial, start.round) for start in starts] == [None, (0, 2), (0, 2), (1, 2)]
    assert starts[3].ratios == {"2": 0.5}


def test_what_begins_at_a_round_keeps_it_when_it_is_cut_off(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, levels=[level(0.4), level(0.5)], features=Features(early_stopping=False))
    driver.run(1)
    config = driver.suggest()
    assert config["start"].checkpoint == "rounds/0-2.safetensors"
    later = Driver(tmp_path, study, levels=[level(0.4), level(0.5)], features=Features(early_stopping=False))
    assert later.suggest() == config


@pytest.mark.parametrize("written", [False, True])
def test_a_process_killed_where_a_trial_enters_the_study(
    written: bool, tmp_path: Path, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, storage = Driver(tmp_path, study), study._storage
    add = storage.create_new_trial
    whole = Driver(tmp_path / "b", optuna.create_study(directions=["maximize", "minimize"])).run(5)
    driver.run(3)

    def killed(study_id: int, template_trial: optuna.trial.FrozenTrial) -> None:
        if written:
            add(study_id, template_trial)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(storage, "create_new_trial", killed)
        with pytest.raises(SystemExit):
            driver.suggest()
    assert len(study.trials) == 3 + written
    assert Driver(tmp_path, study).run(2) == whole[3:]


def test_a_finishing_trial_that_is_given_up_says_how_it_would_have_trained(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, REFINE)
    config = until_refinement(driver)
    driver.end(config, None, error=True)
    record = driver.trials.records[config["trial"]]
    assert (record.state, record.kind, record.params.to_columns()) == ("failed", "refine", config["params"])


# Stopping


# Interruptions


@pytest.mark.parametrize("written", [True, False])
def test_what_was_interrupted_is_run_again_first(driver: Driver, written: bool) -> None:
    driver.run(2)
    configs = [driver.suggest(), driver.suggest()]
    for config in configs:
        driver.end(config, measured(config, "running") if written else None)
        assert driver.state(config["trial"]) == TrialState.RUNNING
    later = Driver(driver.run_dir, driver.study)
    assert later.trials.remaining == 38
    assert [later.suggest(), later.suggest()] == configs
    assert later.suggest()["trial"] == 4
    later.end(configs[0], measured(configs[0]))
    assert later.state(2) == TrialState.COMPLETE


def test_what_was_measured_is_never_run_again(driver: Driver) -> None:
    driver.run(1)
    complete, failed = driver.suggest(), driver.suggest()  # the process is killed before it hears of them
    records.write(driver.run_dir, measured(complete))
    records.write(driver.run_dir, measured(failed, "failed"))
    later = Driver(driver.run_dir, driver.study)
    assert [later.state(number) for number in range(3)] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    assert len(later.study.trials[1].constraints) == 1
    assert (later.trials.remaining, list(later.trials.records)) == (37, [0, 1, 2])
    assert later.suggest()["trial"] == 3


def test_what_is_cut_off_again_and_again_is_given_up(driver: Driver) -> None:
    config = driver.suggest()
    records.write(driver.run_dir, measured(config, "running"))  # two rounds, and the third is never ended
    for _ in range(MAX_STARTS):
        driver = Driver(driver.run_dir, driver.study)
        assert driver.suggest() == config
    last = Driver(driver.run_dir, driver.study)
    record = records.read(records.record_path(driver.run_dir, 0))
    assert last.trials.records == {0: record}
    assert record.state == "failed"
    assert record.reason == f"it was cut off {MAX_STARTS} times in the same round"
    assert len(record.points) == 2
    assert last.state(0) == TrialState.FAIL
    assert last.suggest()["trial"] == 1


def test_a_round_that_ended_lets_a_trial_be_cut_off_again(driver: Driver) -> None:
    config = driver.suggest()
    whole = measured(config, "running")
    for rounds in range(3):
        for _ in range(MAX_STARTS - 1):
            driver = Driver(driver.run_dir, driver.study)
            assert driver.suggest() == config
        last = whole.points[-1]
        later = [replace(last, round=last.round + more, checkpoint=None) for more in range(rounds)]
        points = [*whole.points, *later]
        records.write(driver.run_dir, replace(whole, points=points))
    assert Driver(driver.run_dir, driver.study).suggest() == config


def test_what_ends_in_order_is_no_crash(driver: Driver) -> None:
    config = driver.suggest()
    for reported in (True, False) * 3:  # Ray does not report the end of some trials
        if reported:
            driver.end(config, None)
        driver.trials.cut_off_running()
        driver = Driver(driver.run_dir, driver.study)
        assert driver.suggest() == config
    assert driver.study.trials[0].user_attrs["starts"] == 1


# Several processes


def test_two_processes_run_what_is_missing_once(tmp_path: Path, study: optuna.Study) -> None:
    with join_run(tmp_path) as one, join_run(tmp_path) as other:
        first, second = (Driver(tmp_path, study, REFINE, budget=Budget(9), lock=lock) for lock in (one, other))
        for _ in range(4):
            configs = [driver.suggest() for driver in (first, second)]  # both at once
            for driver, config in zip((second, first), reversed(configs), strict=True):
                driver.end(config, measured(config))
        last = first.suggest()
        assert second.searcher.suggest("none is left") == "FINISHED"
        assert (second.trials.remaining, second.searcher.has_work()) == (1, False)
        first.end(last, measured(last))
        assert not second.searcher.has_work()
    for driver in (first, second):
        assert (driver.trials.remaining, sorted(driver.trials.records)) == (0, [*range(9)])
    assert sorted([*first.ids, *second.ids]) == [*range(9)]
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 9


def test_what_a_process_leaves_behind_that_dies_another_runs(tmp_path: Path, study: optuna.Study) -> None:
    with join_run(tmp_path) as one:
        first = Driver(tmp_path, study, budget=Budget(3), lock=one)
        with join_run(tmp_path) as other:
            second = Driver(tmp_path, study, budget=Budget(3), lock=other)
            ended_, cut_off = second.suggest(), second.suggest()
            records.write(tmp_path, measured(ended_))  # and the process dies before it tells the study
            last = first.suggest()
            assert not first.searcher.has_work()
        assert first.searcher.has_work()
        again = first.suggest()
        assert {key: again[key] for key in ("trial", "seed", "params")} == {
            key: cut_off[key] for key in ("trial", "seed", "params")
        }
        for config in (again, last):
            first.end(config, measured(config))
        assert (first.trials.remaining, sorted(first.trials.records)) == (0, [0, 1, 2])
    assert study.trials[1].user_attrs["starts"] == 2


def test_no_process_deletes_what_another_has_begun_at(tmp_path: Path, study: optuna.Study) -> None:
    with join_run(tmp_path) as one, join_run(tmp_path) as other:
        inheriting = Features(early_stopping=False)
        first, second = (Driver(tmp_path, study, features=inheriting, lock=lock) for lock in (one, other))
        for _ in range(12):
            config = second.suggest()
            first.run(2)
            if config["start"] is not None:
                assert (tmp_path / config["start"].checkpoint).is_file()
            second.end(config, measured(config))
    assert any("parent" in trial.user_attrs for trial in study.trials)


def test_locks_that_do_not_hold_are_found_out(
    tmp_path: Path, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with join_run(tmp_path) as one, join_run(tmp_path) as other:
        first, second = (Driver(tmp_path, study, lock=lock) for lock in (one, other))
        first.suggest()
        monkeypatch.setattr(second.trials._trial_store, "refresh", lambda: None)
        with pytest.raises(RuntimeError, match="another process started trial 0 at the same time"):
            second.suggest()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL]  # no phantom runs on


def test_a_search_whose_lock_was_removed_leaves_the_study_to_who_came(tmp_path: Path, study: optuna.Study) -> None:
    with lock_run(tmp_path, shared=False) as lock:
        first = Driver(tmp_path, study, budget=Budget(4), lock=lock)
        first.run(1)
        config = first.suggest()
        (tmp_path / ".lock").unlink()
        with lock_run(tmp_path, shared=False) as other:
            second = Driver(tmp_path, study, budget=Budget(4), lock=other)
            assert second.suggest() == config
            first.end(config, measured(config))
            assert isinstance(first.searcher.fatal_error, HeldError)
            assert first.searcher.suggest("one more") == "FINISHED"
            second.end(config, measured(config))
            second.run(2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4


# A study and records of different times


def test_records_that_the_study_does_not_have(driver: Driver) -> None:
    driver.run(4)
    older = optuna.create_study(directions=["maximize", "minimize"])
    older.add_trials(driver.study.trials[:2])
    path = driver.run_dir / "results" / "2.json"
    known = "the study has 2 trials, not this one, and so is older than its record"
    said = f"{path}: {known}; put the newest study back, or delete the records that it lacks"
    assert fault(lambda: Driver(driver.run_dir, older)) == said
    assert len(older.trials) == 2
    for number in (2, 3):
        records.record_path(driver.run_dir, number).unlink()
    assert Driver(driver.run_dir, older).suggest()["trial"] == 2


def test_records_of_other_trials_than_the_study_s(driver: Driver, tmp_path: Path) -> None:
    driver.run(4)
    other = Driver(tmp_path / "other", optuna.create_study(directions=["maximize", "minimize"]), seed=8)
    other.run(4)
    path = driver.run_dir / "results" / "0.json"
    before = path.read_bytes()
    said = fault(lambda: Driver(driver.run_dir, other.study))
    assert re.fullmatch(
        re.escape(f"{path}: the study has another trial 0 (") + "(ratio/2|pruner|ratio/2, pruner)"
        r" differ\); put the study of this record back, or delete the record and its trial is run again", said
    )  # fmt: skip
    assert path.read_bytes() == before


def test_a_refinement_whose_record_is_of_another_trial(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, REFINE)
    config = until_refinement(driver)
    record = measured(config)
    driver.end(config, record)
    Driver(tmp_path, study, REFINE)
    records.write(tmp_path, replace(record, refines=None))
    assert "(refines differ)" in fault(lambda: Driver(tmp_path, study, REFINE))
