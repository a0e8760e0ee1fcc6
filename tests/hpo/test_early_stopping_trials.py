from dataclasses import replace
from pathlib import Path

import optuna
from drivers import Driver, level, measured
from optuna.trial import TrialState
from toys import ended

from tune_prune.hpo import early_stopping
from tune_prune.hpo.phases import Features
from tune_prune.results import records
from tune_prune.results.trial_params import TrialParams


def test_what_promises_nothing_is_stopped_and_told_so(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, features=Features(warm_start=False))
    driver.run(early_stopping.MIN_COMPARED)
    stopped, through = [], []
    for _ in range(40):
        config = driver.suggest()
        bad = ended(config["trial"], (0.5, 60.0), state="running")
        records.write(tmp_path, replace(bad, params=TrialParams.from_columns(config["params"])))
        name = driver.ids[config["trial"]]
        if driver.searcher.should_stop(name):
            driver.searcher.on_trial_complete(name)
            stopped.append(config["trial"])
        else:
            assert not driver.searcher.should_stop(name)  # it is not asked again
            driver.end(config, measured(config))
            through.append(config["trial"])
    assert len(stopped) > len(through) > 0
    for number in stopped:
        record = records.read(records.record_path(tmp_path, number))
        assert record == driver.trials.records[number]
        assert (record.state, driver.state(number)) == ("stopped", TrialState.PRUNED)
        assert "promises" in record.reason
    assert all(driver.trials.records[number].reason.startswith(records.EXEMPT_PREFIX) for number in through)
    later = Driver(tmp_path, study, features=Features(warm_start=False))
    assert later.trials.records == driver.trials.records


def test_a_level_is_seen_through(tmp_path: Path, study: optuna.Study) -> None:
    levels = [level(0.1 + number / 100) for number in range(early_stopping.MIN_COMPARED + 1)]
    driver = Driver(tmp_path, study, levels=levels, features=Features(warm_start=False))
    driver.run(early_stopping.MIN_COMPARED)
    config = driver.suggest()
    bad = ended(config["trial"], (0.5, 60.0), state="running")
    records.write(tmp_path, replace(bad, params=TrialParams.from_columns(config["params"])))
    assert not driver.searcher.should_stop(driver.ids[config["trial"]])
