import math
import statistics
from collections.abc import Mapping
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ended, fault

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo import storage
from tune_prune.hpo.config import SAMPLERS
from tune_prune.hpo.groups import Group, GroupedRatio
from tune_prune.hpo.parameters import Choice, Parameter, Range
from tune_prune.hpo.study import (
    STUDY_NAME,
    distributions,
    from_study_params,
    log_factor,
    make_sampler,
    open_study,
    to_study_params,
)
from tune_prune.results import records

THE_SAME = {"model": "net", "weights": "0"}
PARAMETERS: dict[str, Parameter] = {
    "ratio/1": Range(0.1, 0.8),
    "ratio/layer1.0.conv1": Range(0.5, 0.999),
    "ratio/8": 0.7,
    "ratio/10": Choice((0.5, 0.9)),
    "pruner": Choice(("mag", "taylor1")),
    "rounds": Range(2, 8),
    "steps": Range(0, 100, step=25),
    "lr": Range(0.005, 0.1, log=True),
    "momentum": Range(0.0, 0.9, step=0.3),
    "distill": 0.7,
}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return open_study(storage.open_file(tmp_path), STUDY_NAME, tmp_path, THE_SAME)


def inside(params: Mapping[str, object]) -> None:
    """Every parameter is there, in order, and in its domain."""
    assert list(params) == list(PARAMETERS)
    for name, domain in PARAMETERS.items():
        value = params[name]
        assert value in domain if isinstance(domain, Range | Choice) else value == domain
    assert isinstance(params["rounds"], int)
    assert params["steps"] in (0, 25, 50, 75, 100)
    assert any(math.isclose(float(str(params["momentum"])), value, abs_tol=1e-9) for value in (0, 0.3, 0.6, 0.9))


# Parameters


def test_fixed_values_are_not_drawn() -> None:
    assert list(distributions(PARAMETERS)) == [
        *("keep/1", "keep/layer1.0.conv1", "ratio/10", "pruner", "rounds", "steps", "lr", "momentum"),
    ]


@given(st.floats(0.1, 0.8), st.floats(0.5, 0.999), st.integers(2, 8), st.floats(0.005, 0.1))
def test_round_trip(first: float, second: float, rounds: int, lr: float) -> None:
    drawn = {"ratio/1": round(first, 5), "ratio/layer1.0.conv1": round(second, 5), "rounds": rounds, "lr": lr}
    drawn |= {"pruner": "taylor1", "steps": 25, "momentum": 0.3}
    stored = to_study_params(drawn)
    assert "keep/1" in stored
    assert "ratio/1" not in stored
    assert from_study_params(stored | {"ratio/10": 0.9}, PARAMETERS).to_columns() == drawn | {
        "ratio/10": 0.9,
        "ratio/8": 0.7,
        "distill": 0.7,
    }


def test_rounding_never_leaves_the_range() -> None:
    parameters = {"ratio/1": Range(0.123456, 0.987654)}
    assert from_study_params({"keep/1": 1 - 0.123456}, parameters).ratios == {"1": 0.12346}
    assert from_study_params({"keep/1": 1 - 0.987654}, parameters).ratios == {"1": 0.98765}
    parameters = {"ratio/1": Range(0.123454, 0.987656)}
    assert from_study_params({"keep/1": 1 - 0.123454}, parameters).ratios == {"1": 0.123454}
    assert from_study_params({"keep/1": 1 - 0.987656}, parameters).ratios == {"1": 0.987656}


@pytest.mark.parametrize(("scale", "expected"), [("same", (0.75, 0.75)), ("erk", (0.7, 0.775))])
def test_of_layers_together_the_groups_ratio_is_drawn(scale: str, expected: tuple[float, float]) -> None:
    group = Group("group/*", scale, {"a": (10, 10), "b": (20, 10)})
    parameters: dict[str, Parameter] = {
        "group/*": Range(0.1, 0.9),
        "ratio/a": GroupedRatio(group, "a"),
        "ratio/b": GroupedRatio(group, "b"),
    }
    assert list(distributions(parameters)) == ["keep/*"]
    params = from_study_params({"keep/*": 0.25}, parameters)
    assert params.to_columns() == dict(zip(parameters, (0.75, *expected), strict=True))
    assert to_study_params({"group/*": 0.75}) == {"keep/*": 0.25}


def test_what_is_kept_is_uniform_in_its_logarithm() -> None:
    parameters: dict[str, Parameter] = {"ratio/8": Range(0.0, 0.999)}
    study = optuna.create_study(sampler=make_sampler("random", 1, distributions(parameters)))
    drawn = [study.ask(distributions(parameters)).params for _ in range(2000)]
    draws = [from_study_params(params, parameters).ratios["8"] for params in drawn]
    kept = [math.log10(1 - float(str(ratio))) for ratio in draws]
    assert statistics.quantiles(kept, n=10) == pytest.approx([-3 + 0.3 * i for i in range(1, 10)], abs=0.1)
    assert -3 <= min(kept) < -2.98
    assert -0.02 < max(kept) <= 0


@pytest.mark.parametrize(("factor", "expected"), [(1, 0), (10, 1), (100, 2), (1e6, 6)])
def test_log_factor(factor: float, expected: float) -> None:
    assert log_factor(1 - 1 / factor) == pytest.approx(expected)


def test_log_factor_of_nothing_left_is_finite() -> None:
    assert log_factor(1.0) == pytest.approx(6)


# Samplers


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_keeps_to_the_ranges_of_a_constrained_study(name: str) -> None:
    if name == "gp":
        pytest.importorskip("scipy")
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(14 if name == "gp" else 30):
        study.sampler = make_sampler(name, number, distributions(PARAMETERS))
        trial = study.ask(distributions(PARAMETERS))
        params = from_study_params(trial.params, PARAMETERS)
        inside(params.to_columns())
        compression = params.ratios["layer1.0.conv1"]
        trial.set_constraint("error", compression - 0.95)
        study.tell(trial, [log_factor(compression), 100 * compression])


def test_an_unknown_sampler() -> None:
    assert fault(lambda: make_sampler("grid", 0, {})) == "unknown sampler 'grid'; known: tpe, nsga2, gp, random"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_draws_what_optunas_own_would() -> None:
    spaces = distributions(PARAMETERS)
    ours, theirs = (optuna.create_study(directions=["maximize", "minimize"]) for _ in range(2))
    for number in range(16):
        ours.sampler = make_sampler("tpe", number, spaces)
        theirs.sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=number)
        trials = ours.ask(spaces), theirs.ask(spaces)
        assert trials[0].params == trials[1].params
        for study, trial in zip((ours, theirs), trials, strict=True):
            trial.set_constraint("error", number % 3 - 1.0)
            study.tell(trial, [number % 5, number % 7])


def test_tpe_heeds_the_constraint() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    parameters: dict[str, Parameter] = {"ratio/8": Range(0.0, 0.999)}
    feasible = []
    for number in range(60):
        study.sampler = make_sampler("tpe", number, distributions(parameters))
        trial = study.ask(distributions(parameters))
        ratio = from_study_params(trial.params, parameters).ratios["8"]
        trial.set_constraint("error", ratio - 0.5)
        study.tell(trial, [log_factor(ratio), ratio])
        feasible.append(ratio <= 0.5)
    assert sum(feasible[:10]) < 5  # drawn at random: a tenth of the range, on the study's scale
    assert sum(feasible[20:]) > 12


def test_seeds() -> None:
    seeds = {derive_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(1, 2) == derive_seed(1, 2)


# The study on disk


def test_a_study_goes_on(tmp_path: Path, study: optuna.Study) -> None:
    study.enqueue_trial({"keep/1": 0.5})
    again = open_study(storage.open_file(tmp_path), STUDY_NAME, tmp_path, THE_SAME)
    assert len(again.trials) == 1
    assert again.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_a_study_of_another_search_is_refused(tmp_path: Path, study: optuna.Study) -> None:
    said = fault(
        lambda: open_study(storage.open_file(tmp_path), STUDY_NAME, tmp_path, {"model": "net", "weights": "1"})
    )
    assert said == f"{tmp_path}: changed since it was begun: weights; undo that, or use a new --run-dir"
    assert study.user_attrs["fingerprint"] == THE_SAME


def test_a_shared_storage_holds_many_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    open_study(storage.open_url(url), "one", tmp_path, {"model": "1"}).enqueue_trial({})
    assert open_study(storage.open_url(url), "two", tmp_path, {"model": "2"}).trials == []
    assert len(open_study(storage.open_url(url), "one", tmp_path, {"model": "1"}).trials) == 1


def test_a_study_that_is_lost(tmp_path: Path, study: optuna.Study) -> None:
    study.enqueue_trial({"keep/1": 0.5})
    records.write(tmp_path, ended(0))
    open_study(storage.open_file(tmp_path), STUDY_NAME, tmp_path, THE_SAME)
    said = fault(
        lambda: open_study(storage.open_url(f"sqlite:///{tmp_path / 'new.db'}"), STUDY_NAME, tmp_path, THE_SAME)
    )
    assert said.startswith(f"{tmp_path / 'new.db'}: the study has no trials, and {tmp_path / 'results'} has; ")
