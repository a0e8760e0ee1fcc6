"""Gradual pruning by one threshold for all layers: one trial after the other, each from the one before."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from drivers import Driver, level, measured
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from toys import ended, seeded

from tune_prune.hpo import space_reader
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.gradual_pruning import GradualTrials, NextRound, Params, find_params
from tune_prune.hpo.phases import Features, GradualPruning
from tune_prune.hpo.trial_attrs import TrialAttrs
from tune_prune.results.records import TrialRecord
from tune_prune.results.trial_params import TrialParams

SIZES = {"1": 20, "2": 300, "3": 80}


def draw_scores(seed: int) -> dict[str, Tensor]:
    """Magnitudes of the weights of three layers, some of them removed already."""
    generator = seeded(seed)
    drawn = {label: torch.randn(size, generator=generator) for label, size in SIZES.items()}
    return {label: weight.abs() * (weight.abs() > 0.3) for label, weight in drawn.items()}


def compression(params: Params) -> float:
    return sum(float(str(params[label])) * size for label, size in SIZES.items()) / sum(SIZES.values())


def bounded(low: float, high: float) -> GradualTrials:
    def to_params(ratios: object) -> Params:
        assert isinstance(ratios, dict)
        return {label: min(max(ratio, low), high) for label, ratio in ratios.items()}

    return GradualTrials(GradualPruning(), [[*SIZES]], lambda point: {}, to_params)


@given(st.integers(0, 50), st.integers(120, 380))
def test_without_bounds_it_is_one_threshold(seed: int, count: int) -> None:
    scores = draw_scores(seed)
    found = find_params(
        [[*SIZES]], lambda: scores, lambda ratios: dict(ratios), compression, (count - 0.5) / sum(SIZES.values())
    )
    assert found is not None
    every = torch.cat([*scores.values()]).sort().values
    removed = max(count, int((every == 0).sum()))
    threshold = every[removed - 1]
    expected = {label: float((score <= threshold).sum()) / SIZES[label] for label, score in scores.items()}
    assert found == pytest.approx(expected)


@given(st.integers(0, 50), st.floats(0.0, 0.5), st.floats(0.5, 0.98), st.floats(0.1, 0.99))
def test_it_stays_within_bounds_and_reaches_the_target(seed: int, low: float, high: float, target: float) -> None:
    found = find_params([[*SIZES]], lambda: draw_scores(seed), bounded(low, high).to_params, compression, target)
    if found is None:
        assert compression(dict.fromkeys(SIZES, high)) < target
        return
    assert all(low <= float(str(ratio)) <= high for ratio in found.values())
    assert compression(found) >= target


@given(st.integers(0, 50), st.floats(0.3, 0.9), st.floats(0.5, 1.0))
def test_each_stage_makes_the_same_share_of_the_factor(seed: int, target: float, high: float) -> None:
    """Of a mixture whose second layer holds what the first leaves of it."""

    def compression(params: Params) -> float:
        first, second = (float(str(params[label])) for label in ("1", "2"))
        return 1 - (1 - first) * (1 - second)

    scores = {"1": torch.rand(2000, generator=seeded(seed)), "2": torch.rand(3000, generator=seeded(seed + 1))}
    to_params = bounded(0.0, high).to_params
    found = find_params([["1"], ["2"]], lambda: scores, to_params, compression, target)
    if found is None:
        assert compression({"1": high, "2": high}) < target
        return
    assert compression(found) == pytest.approx(target, abs=1e-3)
    half = 1 - (1 - target) ** 0.5
    assert found["1"] == pytest.approx(min(half, high), abs=1e-3)


def test_the_next_factor() -> None:
    trials = replace(bounded(0, 1), pruning=GradualPruning(rounds=4, max_factor=16.0, steps=400))
    assert trials.pruning.step_factor == pytest.approx(2)
    assert trials.pruning.round_steps == [100] * 4
    assert trials.next_round([]) == NextRound(pytest.approx(2), None)
    last = ended(0, (1 - 1 / 8, 1.0))
    assert trials.next_round([last]) == NextRound(pytest.approx(16), last)
    assert trials.next_round([ended(0, (1 - 1 / 16, 1.0))]) is None  # the end
    assert trials.next_round([ended(0, (1 - 1 / 8, 99.0))]) == NextRound(pytest.approx(8**0.5), None)  # half as far
    assert trials.next_round([replace(last, state="failed")]) is None
    assert trials.next_round([last, ended(1, (1 - 1 / 8, 1.0))]) is None  # no further than the one before


@pytest.mark.parametrize(
    ("errors", "factors"),
    [
        ([1, 1, 99, 99, 99], [2, 4, 8, 4 * 2**0.5, 4 * 2**0.25]),
        ([1, 1, 99, 1, 99], [2, 4, 8, 4 * 2**0.5, 4 * 2**0.75]),
        ([1, 1, 1, 99, 1, 1], [2, 4, 8, 16, 8 * 2**0.5, 8 * 2**0.75]),
    ],
)
def test_outside_the_limit_it_goes_half_as_far_from_the_last_within(errors: list[float], factors: list[float]) -> None:
    trials = replace(bounded(0, 1), pruning=GradualPruning(rounds=4, max_factor=16.0, steps=400))
    rounds, within = list[TrialRecord](), list[TrialRecord]()
    for error, expected in zip(errors, factors, strict=True):
        found = trials.next_round(rounds)
        assert found == NextRound(pytest.approx(expected), within[-1] if within else None)
        rounds.append(ended(len(rounds), (1 - 1 / expected, error)))
        within += rounds[-1:] if error == 1 else []
    assert trials.next_round(rounds) is None


def test_steps_that_are_left_at_the_limit_make_longer_rounds() -> None:
    """A network that can keep one of 2.1 weights, and with twice the training one of 2.9."""
    trials = replace(bounded(0, 1), pruning=GradualPruning(rounds=12, max_factor=2.0**12, steps=1200))
    rounds, seen = list[TrialRecord](), list[tuple[float, int]]()
    while (found := trials.next_round(rounds)) is not None:
        params = trials.train(TrialParams({"2": 0.5}, "mag"), found.factor, found.times)
        error = 1.0 if found.factor <= {1: 2.1, 2: 2.9}[found.times] else 99.0
        rounds.append(replace(ended(len(rounds), (1 - 1 / found.factor, error)), params=params))
        seen.append((round(found.factor, 2), found.times))
    # the first rounds end at 2x; twice as long ones go where these have failed
    assert seen == [(2.0, 1), (4.0, 1), (2.83, 1), (2.38, 1), (2.38, 2), (2.83, 2), (4.0, 2), (3.36, 2)]
    assert sum(one.params.to_plan().final_steps for one in rounds) == 1200


def test_each_round_trains_longer_than_the_one_before() -> None:
    pruning = GradualPruning(rounds=4, max_factor=16.0, steps=1500, growth=8.0)
    assert pruning.round_steps == [100, 200, 400, 800]
    # a round that the bounds of the space let end elsewhere trains as the nearest
    assert [pruning.steps_to(factor) for factor in (1.1, 2.0, 4.1, 7.9, 16.5, 40.0)] == [100, 100, 200, 400, 800, 800]


@given(st.integers(1, 30), st.floats(0.1, 20), st.integers(1000, 100_000))
def test_the_rounds_share_the_steps(rounds: int, growth: float, steps: int) -> None:
    found = GradualPruning(rounds=rounds, steps=steps, growth=growth).round_steps
    assert sum(found) == pytest.approx(steps, abs=rounds)
    assert found[-1] / found[0] == pytest.approx(growth if rounds > 1 else 1, abs=2 * growth / found[0] + 0.1)


def test_a_small_budget_has_fewer_and_larger_rounds() -> None:
    whole = GradualPruning(rounds=16, max_factor=256.0, steps=1600)
    assert whole.within(100, 3.0) == whole
    fewer = whole.within(12, 0.75)
    assert (fewer.rounds, fewer.round_steps, fewer.max_factor) == (12, [100] * 12, 256.0)
    few = whole.within(4, 0.25)
    assert (few.rounds, few.round_steps, few.step_factor) == (4, [100] * 4, pytest.approx(2))
    assert whole.within(3).steps == GradualPruning().within(4).steps == 0


def test_of_a_space_it_is_half_of_the_trials() -> None:
    text = TOML + "\n[gradual]\nrounds = 16\nmax_factor = 256\nsteps = 1600\n"
    space = space_reader.parse(text, "toy", "toy.toml")
    assert space.gradual_within(None) == space.gradual
    found = space.gradual_within(10)
    assert found is not None
    assert (found.rounds, found.steps) == (5, 160)
    assert space.gradual_within(7) is None
    assert replace(space, features=Features(warm_start=False)).gradual_within(None) is None


TOML = """
[task]
model = "toys:mlp"
data = "toys:images"
[space.ratio]
"*" = {low = 0.1, high = 0.9}
"""


# Within a search

PRUNING = GradualPruning(rounds=4, max_factor=16.0, steps=44, lr=0.2)


def make(run_dir: Path, study: optuna.Study, budget: int = 40) -> Driver:
    """A search with a level, whose gradual pruning removes what is asked for of its only layer."""

    def to_params(ratios: object) -> Params:
        assert isinstance(ratios, dict)
        return {"ratio/2": min(max(ratios["2"], 0.1), 0.99), "pruner": "mag"}

    weights = {"2": torch.linspace(0.001, 1, 1000)}
    gradual = GradualTrials(PRUNING, [["2"]], lambda point: weights, to_params)
    features = Features(early_stopping=False)
    return Driver(run_dir, study, levels=[level(0.3)], features=features, gradual=gradual, budget=Budget(budget))


def attrs(driver: Driver, number: int) -> TrialAttrs:
    return driver.trials._trial_store.attrs(number)


def test_one_round_at_a_time_each_from_the_one_before(tmp_path: Path, study: optuna.Study) -> None:
    driver = make(tmp_path, study)
    first = driver.suggest()
    assert first["gradual"]
    assert first["start"] is None
    assert first["params"]["ratio/2"] == pytest.approx(1 / 2, abs=1e-3)
    assert {key: first["params"][key] for key in ("rounds", "steps", "final_steps", "lr")} == {
        "rounds": 1, "steps": 11, "final_steps": 11, "lr": 0.2,
    }  # fmt: skip
    other = driver.suggest()  # while it runs, the level
    assert not other["gradual"]
    assert attrs(driver, 1).queued == 0
    driver.end(first, replace(measured(first), points=measured(first).points[-1:]))
    second = driver.suggest()
    assert second["gradual"]
    assert (second["start"].trial, attrs(driver, 2).parent) == (0, 0)
    assert second["params"]["ratio/2"] == pytest.approx(3 / 4, abs=1e-3)


def test_it_ends_outside_the_limit(tmp_path: Path, study: optuna.Study) -> None:
    driver = make(tmp_path, study)
    assert fail_all_rounds(driver) == pytest.approx([1 / 2, 1 - 2**-0.5, 1 - 2**-0.25], abs=1e-3)
    assert not any(config["gradual"] for config in driver.run(6))


def fail_all_rounds(driver: Driver) -> list[float]:
    """Runs gradual pruning as if no round were within the limit, until another trial comes; returns the ratios."""
    ratios = []
    while (config := driver.suggest())["gradual"]:
        ratios.append(config["params"]["ratio/2"])
        points = ended(config["trial"], (ratios[-1], 99.0)).points
        driver.end(config, replace(measured(config), points=points))
    return ratios


def test_a_resumed_search_goes_on(tmp_path: Path, study: optuna.Study) -> None:
    driver = make(tmp_path, study)
    cut = driver.suggest()
    again = make(tmp_path, study)
    assert again.suggest()["params"] == cut["params"]
    again.end(cut | {"trial": 0}, measured(cut))
    assert again.suggest()["params"]["ratio/2"] == pytest.approx(3 / 4, abs=1e-3)


def test_the_checkpoint_from_which_it_goes_on_stays(tmp_path: Path, study: optuna.Study) -> None:
    driver = make(tmp_path, study)
    config = driver.suggest()
    driver.end(config, record := measured(config))
    assert record.last.checkpoint in driver.trials._trial_store.checkpoints_in_use


def test_the_last_trials_of_the_budget_are_kept_for_it(tmp_path: Path, study: optuna.Study) -> None:
    driver = make(tmp_path, study, budget=6)  # four rounds, and two others
    first = driver.suggest()
    assert not driver.trials.should_wait()
    others = [driver.suggest(), driver.suggest()]
    assert driver.trials.should_wait()
    assert driver.searcher.suggest("asked too early") is None
    driver.end(others[0], measured(others[0]))
    assert driver.trials.should_wait()
    driver.end(first, replace(measured(first), points=measured(first).points[-1:]))
    assert not driver.trials.should_wait()
    assert driver.suggest()["gradual"]
    assert driver.trials.should_wait()


def test_nothing_waits_for_rounds_outside_the_limit(tmp_path: Path, study: optuna.Study) -> None:
    driver = make(tmp_path, study, budget=6)
    assert len(fail_all_rounds(driver)) == 3  # and another trial was asked for
    assert not driver.trials.should_wait()
    assert [driver.suggest()["gradual"] for _ in range(2)] == [False] * 2
