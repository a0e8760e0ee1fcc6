"""Trials beyond the most compressed end of the front."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from drivers import REFINE, Driver, level, measured
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.hpo.front_extension import LEAST_STEP, STEP, next_compression, scale_kept
from tune_prune.hpo.phases import Features
from tune_prune.hpo.trial_attrs import TrialAttrs

COMPRESSIONS = st.floats(0.1, 0.999)


def test_where_nothing_failed_it_is_a_step_on() -> None:
    assert next_compression(0.99, [0.5, 0.98]) == pytest.approx(1 - 0.01 / STEP)


@given(COMPRESSIONS, st.lists(COMPRESSIONS))
def test_it_lies_beyond_the_end_and_before_what_failed(reached: float, failed: list[float]) -> None:
    found, beyond = next_compression(reached, failed), [one for one in failed if one > reached]
    if found is None:
        assert max(1 - one for one in beyond) * LEAST_STEP**2 > 1 - reached
    else:
        assert found > reached
        assert all(found < one for one in beyond)
        assert LEAST_STEP <= (1 - reached) / (1 - found) * (1 + 1e-9) <= STEP * (1 + 1e-6)


def test_failures_halve_the_way() -> None:
    """From 100x with a failure at 121x: 110x; where that fails as well, 105x is too near."""
    assert 1 / (1 - next_compression(0.99, [1 - 1 / 121])) == pytest.approx(110)  # type: ignore[operator]
    assert next_compression(0.99, [1 - 1 / 121, 1 - 1 / 110]) is None


WEIGHTS = {"keep/1": 100, "keep/2": 5000, "keep/3": 900}


def compression(params: object) -> float:
    """That of three layers."""
    return 1 - sum(params[name] * count for name, count in WEIGHTS.items()) / 6000  # type: ignore[index]


@given(st.floats(0.02, 1), st.floats(0.02, 1), st.floats(0.02, 1), COMPRESSIONS)
def test_kept_shares_are_scaled_alike_within_their_bounds(one: float, two: float, three: float, target: float) -> None:
    params = {"keep/1": one, "keep/2": two, "keep/3": three, "pruner": "mag", "lr": 0.1}
    bounds = dict.fromkeys(WEIGHTS, (0.01, 1.0))
    found = scale_kept(params, bounds, compression, target)
    if found is None:
        assert target > compression(dict.fromkeys(WEIGHTS, 0.01))
        return
    assert (found["pruner"], found["lr"]) == ("mag", 0.1)
    assert compression(found) >= target
    assert compression(found) == pytest.approx(max(target, 0.0), abs=1e-6)
    inside = [name for name in WEIGHTS if 0.01 < found[name] < 1]  # type: ignore[operator]
    scales = [found[name] / params[name] for name in inside]  # type: ignore[operator]
    assert scales == pytest.approx([scales[0]] * len(scales)) if scales else True


# Within a search


def make(run_dir: Path, study: optuna.Study) -> Driver:
    """A search with two levels, far from what refined trials can keep: a ratio of 0.99."""
    levels = [level(0.2), level(0.3)]
    return Driver(run_dir, study, REFINE, levels=levels, features=Features(early_stopping=False))


def attrs(driver: Driver, number: int) -> TrialAttrs:
    """What the study notes of a trial."""
    return driver.trials._trial_store.attrs(number)


def run(driver: Driver, trials: int) -> list[dict[str, Any]]:
    """Runs trials one after the other; those that are drawn fail, so that none of them goes beyond the front."""
    configs = []
    for _ in range(trials):
        configs.append(driver.suggest())
        given = attrs(driver, configs[-1]["trial"]).is_given
        driver.end(configs[-1], measured(configs[-1], "complete" if given else "failed"))
    return configs


def test_the_search_goes_beyond_what_its_trials_have_reached(tmp_path: Path, study: optuna.Study) -> None:
    driver = make(tmp_path, study)
    configs = run(driver, 40)
    records = driver.trials.records
    extending = [number for number in records if attrs(driver, number).extends is not None]
    assert len(extending) >= 2
    for number in extending:
        before = [records[other] for other in range(number)]
        reached, end = max((p.compression, r.trial) for r in before for p in r.points if p.feasible)
        assert attrs(driver, number).extends == end
        step = (1 - reached) / (1 - records[number].last.compression)
        assert LEAST_STEP * 0.99 <= step <= STEP * 1.01
        assert records[number].kind == "explore"
        assert configs[number]["params"]["lr"] == 0.1
    refined = {config["refines"] for config in configs}
    assert refined & {*extending}


def test_one_at_a_time(tmp_path: Path, study: optuna.Study) -> None:
    """While a trial beyond the front runs, others are drawn."""
    driver = make(tmp_path, study)
    while attrs(driver, (config := run(driver, 1)[0])["trial"]).refines is None:
        pass
    while attrs(driver, (config := driver.suggest())["trial"]).extends is None:
        given = attrs(driver, config["trial"]).is_given
        driver.end(config, measured(config, "complete" if given else "failed"))
    for _ in range(5):
        other = driver.suggest()
        assert not attrs(driver, other["trial"]).is_given
        driver.end(other, measured(other, "failed"))
    driver.end(config, measured(config))
    assert attrs(driver, driver.suggest()["trial"]).refines == config["trial"]


def test_it_goes_on_in_another_process_as_in_one(tmp_path: Path, study: optuna.Study) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = make(tmp_path / "whole", optuna.create_study(directions=study.directions))
    configs = run(whole, 30)
    assert any(attrs(whole, config["trial"]).extends is not None for config in configs)
    for config in configs:
        assert run(make(tmp_path / "parts", study), 1)[0]["params"] == config["params"]


@pytest.mark.parametrize("written", [{"extends": 3}, {"extends": -1}, {"extends": "1"}])
def test_a_trial_extends_an_earlier_one(written: dict[str, Any]) -> None:
    assert TrialAttrs.read(4, {"extends": 3}).is_given
    with pytest.raises((TypeError, ValueError)):
        TrialAttrs.read(3, written)
