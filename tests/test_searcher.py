import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ended
from optuna.trial import TrialState

from tune_prune import atomic, records
from tune_prune.knobs import Choice, Knob, Range
from tune_prune.records import TrialRecord
from tune_prune.searcher import MAX_STARTS, Goal, StudySearcher
from tune_prune.space import Finish

KNOBS: dict[str, Knob] = {"ratio/2": Range(0.1, 0.99), "pruner": Choice(("mag", "taylor1")), "rounds": 2, "lr": 0.1}
DENSE, LIMIT = 1.0, 2.0
FINISH = Finish(share=0.25, steps=7, lr=0.3)


@dataclass
class Driver:
    """One process that searches, in the place of Ray: `study` and `run_dir` outlive it."""

    run_dir: Path
    study: optuna.Study
    finish: Finish = field(default_factory=Finish)
    seed: int = 3
    changes: int = 0

    def __post_init__(self) -> None:
        goal = Goal(40, DENSE, LIMIT, self.finish)
        self.searcher = StudySearcher(self.study, self.run_dir, KNOBS, goal, "tpe", self.seed, self.changed)
        self.ids: dict[int, str] = {}

    def changed(self, searcher: StudySearcher) -> None:
        self.changes += 1

    def suggest(self) -> dict[str, Any]:
        """The next trial; Ray has a name of its own for it."""
        name = f"ray{len(self.ids)}"
        config = self.searcher.suggest(name)
        assert config is not None
        self.ids[config["trial"]] = name
        return config

    def end(self, config: Mapping[str, Any], record: TrialRecord | None, error: bool = False) -> None:
        """The trial's worker wrote this record, and its trial is over."""
        if record is not None:
            records.write(self.run_dir, record)
            for point in record.points:
                atomic.write_bytes(self.run_dir / str(point.checkpoint), b"weights")
        self.searcher.on_trial_complete(self.ids[config["trial"]], None, error)

    def run(self, trials: int) -> list[dict[str, Any]]:
        """Several trials, one after the other."""
        configs = []
        for _ in range(trials):
            configs.append(self.suggest())
            self.end(configs[-1], measured(configs[-1]))
        return configs

    def state(self, number: int) -> TrialState:
        return self.study.trials[number].state


def measured(config: Mapping[str, Any], state: str = "complete") -> TrialRecord:
    """What a trial measures: the more is removed the more errors, by a third fewer if it finishes another."""
    ratio = config["params"]["ratio/2"]
    error = DENSE + 3 * ratio**2 * (0.33 if "parent" in config else 1)
    record = ended(config["trial"], (ratio / 2, 1.1), (ratio, error), limit=LIMIT, state=state)
    return replace(record, parent=config.get("parent"))


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


@pytest.fixture
def driver(tmp_path: Path, study: optuna.Study) -> Driver:
    return Driver(tmp_path, study)


# What the study is told


@pytest.mark.parametrize(("error", "feasible"), [(1.5, True), (2.0, True), (2.1, False), (50.0, False)])
def test_the_constraint_is_there_before_the_values(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, error: float, feasible: bool
) -> None:
    violations: list[float] = []
    tell = driver.study.tell

    def spy(number: int, *values: Any, **more: Any) -> Any:
        violations.extend(driver.study.trials[number].constraints.values())
        return tell(number, *values, **more)

    monkeypatch.setattr(driver.study, "tell", spy)
    driver.end(driver.suggest(), ended(0, (0.9, error)))
    trial = driver.study.trials[0]
    assert trial.state == TrialState.COMPLETE
    assert trial.values == [pytest.approx(1.0), error]
    assert list(trial.constraints.values()) == violations == [pytest.approx(error - LIMIT)]  # positive: infeasible
    assert (violations[0] <= 0) == feasible


def test_a_failed_trial(driver: Driver) -> None:
    driver.end(driver.suggest(), replace(ended(0, (0.9, 1.0), state="failed"), reason="ScoreError: not finite"))
    assert driver.state(0) == TrialState.FAIL
    assert driver.searcher.records[0].reason == "ScoreError: not finite"


def test_no_nan_reaches_the_study(driver: Driver) -> None:
    driver.end(driver.suggest(), ended(0, (0.9, math.nan), state="failed"))
    assert driver.state(0) == TrialState.FAIL
    assert driver.study.trials[0].values is None
    driver.run(12)  # and goes on


@pytest.mark.parametrize("before", [[], [(0.5, 1.2)]])
def test_a_worker_that_died(driver: Driver, before: list[tuple[float, float]]) -> None:
    config = driver.suggest()
    driver.end(config, ended(0, *before, state="running") if before else None, error=True)
    assert driver.state(0) == TrialState.FAIL
    written = records.read(records.path_of(driver.run_dir, 0))
    assert written == driver.searcher.records[0]
    assert (written.state, written.params) == ("failed", config["params"])
    assert "died" in written.reason
    assert [point.compression for point in written.points] == [0.5 for _ in before]


def test_a_worker_that_died_after_its_last_word(driver: Driver) -> None:
    driver.end(driver.suggest(), ended(0, (0.9, 1.0)), error=True)
    assert driver.state(0) == TrialState.COMPLETE


def test_counts_and_news(driver: Driver) -> None:
    first, second = driver.suggest(), driver.suggest()
    searcher = driver.searcher
    assert (searcher.started, searcher.running, searcher.missing, driver.changes) == (2, 2, 40, 2)
    searcher.on_trial_result("ray0", {})
    driver.end(first, measured(first))
    assert (searcher.started, searcher.running, searcher.missing, driver.changes) == (2, 1, 39, 4)
    driver.end(second, None)
    assert (searcher.started, searcher.running, searcher.missing, driver.changes) == (2, 0, 39, 5)


def test_it_pickles_as_ray_asks(driver: Driver, tmp_path: Path) -> None:
    driver.run(2)
    assert isinstance(pickle.loads(pickle.dumps(driver.searcher)), StudySearcher)
    driver.searcher.save(str(tmp_path / "a"))
    driver.searcher.restore(str(tmp_path / "a"))
    assert {path.name for path in tmp_path.iterdir()} == {"results", "rounds"}


# What it suggests


def test_guesses_come_first_and_in_order(driver: Driver) -> None:
    guesses: list[dict[str, object]] = [{"ratio/2": ratio, "pruner": "taylor1"} for ratio in (0.5, 0.9, 0.7, 0.9)]
    driver.searcher.enqueue(guesses)
    driver.searcher.enqueue(guesses)
    configs = driver.run(6)
    assert [config["params"]["ratio/2"] for config in configs[:3]] == [0.5, 0.9, 0.7]
    assert all(config["params"]["pruner"] == "taylor1" for config in configs[:3])
    assert not {config["params"]["ratio/2"] for config in configs[3:]} & {0.5, 0.7, 0.9}


def test_configs_hold_every_parameter_and_a_seed_of_their_own(driver: Driver) -> None:
    configs = driver.run(14)
    assert [config["trial"] for config in configs] == list(range(14))
    assert all(list(config["params"]) == list(KNOBS) for config in configs)
    assert all(config["params"]["ratio/2"] in KNOBS["ratio/2"] for config in configs)  # type: ignore[operator]
    assert len({config["seed"] for config in configs}) == 14


@pytest.mark.parametrize("finish", [Finish(), FINISH])
@pytest.mark.parametrize("split", [0, 5, 13])
def test_the_seed_decides_also_where_another_process_goes_on(tmp_path: Path, finish: Finish, split: int) -> None:
    def new(name: str, seed: int) -> Driver:
        return Driver(tmp_path / name, optuna.create_study(directions=["maximize", "minimize"]), finish, seed)

    whole = new("a", 3).run(16)
    assert whole != new("b", 4).run(16)
    first = new("c", 3)
    begun = first.run(split)
    first.suggest()  # and the process is killed
    later = Driver(first.run_dir, first.study, finish)
    assert begun + later.run(16 - split) == whole


# Finishing


def test_finishing_goes_on_from_a_parent(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, FINISH)
    configs = driver.run(40)
    finishing = [config for config in configs if "parent" in config]
    assert len(finishing) == 10
    assert len({config["parent"] for config in finishing}) == 10
    for config in finishing:
        parent = configs[config["parent"]]
        own = {"rounds": 1, "final_steps": 7, "lr": 0.3}
        before = {f"parent/{key}": parent["params"][key] for key in own if key in parent["params"]}
        assert config["params"] == parent["params"] | own | before
        assert config["start"] == f"rounds/{config['parent']}-2.safetensors"
        assert config["seed"] != parent["seed"]
        assert "parent" not in parent
    assert driver.searcher.parents == {config["trial"]: config["parent"] for config in finishing}


def test_only_what_has_its_weights_is_finished(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, FINISH)
    driver.run(8)
    for number in range(1, 8):
        (tmp_path / f"rounds/{number}-2.safetensors").unlink()
    assert [config["parent"] for config in (driver.suggest() for _ in range(10)) if "parent" in config] == [0]


def test_a_finishing_trial_that_was_cut_off_finishes_the_same_parent(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, FINISH)
    while "parent" not in (config := driver.suggest()):
        driver.end(config, measured(config))
    later = Driver(tmp_path, study, FINISH)
    assert later.searcher.parents == {config["trial"]: config["parent"]}
    assert later.suggest() == config


def test_a_failed_finish_keeps_its_parent(tmp_path: Path, study: optuna.Study) -> None:
    driver = Driver(tmp_path, study, FINISH)
    while "parent" not in (config := driver.suggest()):
        driver.end(config, measured(config))
    driver.end(config, None, error=True)
    assert driver.searcher.records[config["trial"]].parent == config["parent"]


# Interruptions


@pytest.mark.parametrize("written", [True, False])
def test_what_was_interrupted_is_run_again_first(driver: Driver, written: bool) -> None:
    driver.run(2)
    configs = [driver.suggest(), driver.suggest()]
    for config in configs:
        driver.end(config, measured(config, "running") if written else None)
        assert driver.state(config["trial"]) == TrialState.RUNNING
    later = Driver(driver.run_dir, driver.study)
    assert later.searcher.missing == 38
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
    assert (later.searcher.missing, list(later.searcher.records)) == (37, [0, 1, 2])
    assert later.suggest()["trial"] == 3


def test_what_is_cut_off_again_and_again_is_given_up(driver: Driver) -> None:
    config = driver.suggest()
    for _ in range(MAX_STARTS - 1):
        driver = Driver(driver.run_dir, driver.study)
        assert driver.suggest() == config
    records.write(driver.run_dir, measured(config, "running"))
    last = Driver(driver.run_dir, driver.study)
    record = records.read(records.path_of(driver.run_dir, 0))
    assert last.searcher.records == {0: record}
    assert record.state == "failed"
    assert record.reason == f"it was cut off {MAX_STARTS} times"
    assert len(record.points) == 2
    assert last.state(0) == TrialState.FAIL
    assert last.suggest()["trial"] == 1
