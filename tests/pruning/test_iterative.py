import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import Conv, Tied, images, mlp, seeded

from tune_prune.pruning import checkpoint, criteria, iterative, masks
from tune_prune.pruning.granularity import granularities
from tune_prune.pruning.iterative import Point, State, initial_state, prune
from tune_prune.pruning.plan import MODES, Plan, schedules
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Data
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

PLAN = Plan(
    ratios={"features.0": 0.5, "features.4": 0.91, "head": 0.7},
    pruners={"features.0": "mag", "features.4": "taylor1", "head": "random"},
    rounds=4,
    steps=6,
    final_steps=9,
    lr=0.05,
    weight_decay=0.01,
    batch_size=32,
    sample=100,
)
TOTALS = {"features.0": 36, "features.4": 288, "head": 128}


@pytest.fixture(scope="module")
def trained() -> Conv:
    """A dense model that has learned the toy data."""
    torch.manual_seed(0)
    model = Conv()
    fit(model, images().train, Recipe(80, 0.1, batch_size=32), seeded(0))
    return model


def run(model: nn.Module, data: Data, plan: Plan = PLAN, seed: int = 7) -> tuple[State, list[Point]]:
    """Runs all rounds on a copy of the model; returns its state and the points."""
    state = initial_state(copy.deepcopy(model))
    return state, list(prune(state, plan, data.train, data.validation, seed))


def timeless(points: list[Point]) -> list[Point]:
    """The points with their times set to 0."""
    return [replace(point, seconds=0.0) for point in points]


def test_every_round_is_exact_and_its_zeros_stay(trained: Conv, toy_data: Data) -> None:
    state, before = initial_state(copy.deepcopy(trained)), masks.dense_masks(trained)
    for number, point in enumerate(prune(state, PLAN, toy_data.train, toy_data.validation, 7), start=1):
        removed = 0
        for label, weight in masks.prunable(state.model).items():
            assert (weight[state.masks[label] == 0] == 0).all()
            assert (state.masks[label][before[label] == 0] == 0).all()
            before[label] = state.masks[label]
            share = 1 - (1 - number / 4) ** 3
            count = int((state.masks[label] == 0).sum())
            assert count == round(PLAN.ratios[label] * share * TOTALS[label])
            removed += count
        assert (point.round, state.rounds_done) == (number, number)
        assert point.compression == removed / 452
        assert point.factor == pytest.approx(452 / (452 - removed))
        assert (point.metric, point.loss) == evaluate(state.model, toy_data.validation)
        assert point.seconds > 0
    assert number == 4
    assert removed == 18 + 262 + 90
    assert point.ratios == PLAN.ratios


@pytest.mark.parametrize("name", schedules)
@pytest.mark.parametrize("rounds", [1, 3, 8])
def test_ratios_of_the_schedules(name: str, rounds: int) -> None:
    plan = replace(PLAN, schedule=name, rounds=rounds, ratios={"head": 0.999, "features.0": 0.0})
    found = [plan.ratios_at(number)["head"] for number in range(1, rounds + 1)]
    assert found == pytest.approx([schedules[name](0.999, number / rounds) for number in range(1, rounds + 1)])
    assert plan.ratios_at(rounds) == plan.ratios
    assert plan.ratios_at(1)["features.0"] == 0


def test_the_last_round_is_final_whatever_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schedules._entries, "lazy", lambda ratio, progress: 0.9 * progress * ratio)
    plan = replace(PLAN, schedule="lazy")
    assert plan.ratios_at(2)["head"] == pytest.approx(0.7 * 0.45)
    assert plan.ratios_at(4) == PLAN.ratios


@pytest.mark.usefixtures("small_statistics")
@pytest.mark.parametrize("factory", [mlp, Conv, Tied])
@pytest.mark.parametrize("pruner", criteria.criteria)
def test_compression_never_falls(factory: type[nn.Module], pruner: str, toy_data: Data) -> None:
    labels = list(masks.prunable(factory()))
    plan = Plan(dict.fromkeys(labels, 0.8), dict.fromkeys(labels, pruner), rounds=3, steps=2, sample=50)
    _, points = run(factory(), toy_data, plan)
    found = [point.compression for point in points]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("done", [1, 2, 3])
def test_going_on_from_a_file_is_going_on(trained: Conv, toy_data: Data, tmp_path: Path, done: int) -> None:
    whole, points = run(trained, toy_data)
    state = initial_state(copy.deepcopy(trained))
    rounds = prune(state, PLAN, toy_data.train, toy_data.validation, 7)
    for _ in range(done):
        next(rounds)
    checkpoint.write(tmp_path / "a.safetensors", "toys:Conv", state.model, state.masks)
    resumed = State(*checkpoint.restore(checkpoint.read(tmp_path / "a.safetensors"), "a"), rounds_done=done)
    later = list(prune(resumed, PLAN, toy_data.train, toy_data.validation, 7))
    assert timeless(later) == timeless(points)[done:]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value)
    assert all(torch.equal(resumed.masks[label], whole.masks[label]) for label in TOTALS)


def test_nothing_is_left_to_do_after_the_last_round(trained: Conv, toy_data: Data) -> None:
    state, _ = run(trained, toy_data)
    before = copy.deepcopy(state.model.state_dict())
    assert list(prune(state, PLAN, toy_data.train, toy_data.validation, 7)) == []
    assert all(torch.equal(value, before[key]) for key, value in state.model.state_dict().items())


def test_the_seed_decides(trained: Conv, toy_data: Data) -> None:
    one, again, other = (run(trained, toy_data, seed=seed)[1] for seed in (1, 1, 2))
    assert timeless(one) == timeless(again)
    assert [point.loss for point in one] != [point.loss for point in other]


def test_a_layer_that_the_plan_leaves_out_stays_whole(trained: Conv, toy_data: Data) -> None:
    state, points = run(trained, toy_data, replace(PLAN, ratios={"head": 0.5}, pruners={"head": "mag"}))
    assert points[-1].compression == 64 / 452
    assert masks.kept_counts(state.masks) == {"features.0": (36, 36), "features.4": (288, 288), "head": (64, 128)}


def test_no_steps_no_retraining(trained: Conv, toy_data: Data) -> None:
    state, _ = run(trained, toy_data, replace(PLAN, steps=0, final_steps=0))
    layers = masks.prunable(trained)
    for label, weight in masks.prunable(state.model).items():
        assert torch.equal(weight, layers[label] * state.masks[label])
    for key, value in trained.named_parameters():
        assert key.removesuffix(".weight") in layers or torch.equal(state.model.get_parameter(key), value)


def test_the_last_round_retrains_with_its_own_steps() -> None:
    recipes = [PLAN.recipe_at(number) for number in (1, 2, 3, 4)]
    assert [recipe.steps for recipe in recipes] == [6, 6, 6, 9]
    assert {(recipe.lr, recipe.weight_decay, recipe.batch_size) for recipe in recipes} == {(0.05, 0.01, 32)}


def test_retraining_wins_back_what_pruning_lost(trained: Conv, toy_data: Data) -> None:
    hard = replace(PLAN, pruners=dict.fromkeys(TOTALS, "random"), rounds=1)
    _, (cut,) = run(trained, toy_data, replace(hard, final_steps=0))
    _, (healed,) = run(trained, toy_data, replace(hard, final_steps=60))
    assert healed.loss < cut.loss
    assert healed.compression == cut.compression


def test_the_teacher_teaches(trained: Conv, toy_data: Data) -> None:
    teacher = toy_data.train.scores(trained)
    plan = replace(PLAN, distill=1.0, rounds=1, pruners=dict.fromkeys(TOTALS, "mag"))
    wrong = replace(toy_data.train, labels=3 - toy_data.train.labels)  # unused: the teacher has the whole loss
    one, two = (
        list(prune(initial_state(copy.deepcopy(trained)), plan, train, toy_data.validation, 1, teacher))
        for train in (toy_data.train, wrong)
    )
    assert one[0].loss == pytest.approx(two[0].loss)


def test_every_round_has_a_sample_of_its_own(monkeypatch: pytest.MonkeyPatch, toy_data: Data) -> None:
    samples: list[list[int]] = []
    original = criteria.score_layers

    def spy(pruners: dict[str, str], context: Context) -> dict[str, Tensor]:
        samples.append(context.sample.labels.tolist())
        return original(pruners, context)

    monkeypatch.setattr(criteria, "score_layers", spy)
    run(Conv(), toy_data)
    assert [len(sample) for sample in samples] == [100] * 4
    assert samples[0] != samples[1] != samples[2] != samples[3]
    run(Conv(), toy_data, replace(PLAN, sample=1024, rounds=1))
    assert sorted(samples[4]) == sorted(toy_data.train.labels.tolist())


# Modes and granularities


@pytest.mark.parametrize("granularity", granularities)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_granularity_goes_on_from_a_round_as_if_it_had_not_stopped(
    trained: Conv, toy_data: Data, mode: str, granularity: str
) -> None:
    ratios = dict.fromkeys(masks.prunable(trained), 0.7)
    plan = replace(PLAN, ratios=ratios, pruners=dict.fromkeys(ratios, "mag"), mode=mode, granularity=granularity)
    state, points = run(trained, toy_data, plan)
    assert points[-1].compression == pytest.approx(0.7, abs=0.1 if granularity in ("filter", "neuron") else 2e-3)
    again = iterative.initial_state(copy.deepcopy(trained))
    rounds = iterative.prune(again, plan, toy_data.train, toy_data.validation, 7)
    first = next(rounds)
    again.rounds_done = plan.rounds_within(first.reached)
    assert again.rounds_done <= 1
    rest = list(iterative.prune(again, plan, toy_data.train, toy_data.validation, 7))
    assert again.rounds_done == plan.rounds
    if len(rest) == plan.rounds - 1:  # units of many weights may fall short of a round's ratio, which is run again
        assert timeless([first, *rest]) == timeless(points)
        assert all(torch.equal(mask, again.masks[label]) for label, mask in state.masks.items())


def test_layers_as_one_have_one_ratio() -> None:
    with pytest.raises(ValueError, match="takes one ratio for all layers"):
        Plan({"2": 0.5, "4": 0.6}, {}, mode="global")


def test_global_mode_reports_the_ratio_of_each_layer_and_of_all(trained: Conv, toy_data: Data) -> None:
    ratios = dict.fromkeys(masks.prunable(trained), 0.7)
    plan = replace(PLAN, ratios=ratios, pruners=dict.fromkeys(ratios, "mag"), mode="global", rounds=1)
    state, (point,) = run(trained, toy_data, plan)
    counts = masks.kept_counts(state.masks)
    assert (point.pooled, point.reached) == (0.7, ratios)
    assert point.ratios == {label: pytest.approx(1 - kept / n, abs=1e-9) for label, (kept, n) in counts.items()}
    assert len(set(point.ratios.values())) > 1
