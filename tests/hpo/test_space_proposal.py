"""Proposed spaces: every layer has a ratio, and lines are few."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from tune_prune.hpo import space_reader
from tune_prune.hpo.parameters import Range
from tune_prune.hpo.schedule_proposal import Schedule, propose_schedule
from tune_prune.hpo.space import Space
from tune_prune.hpo.space_proposal import MOST_PATTERNS, POINTS, Training, propose_ratios, write_proposal

RESNET = {"conv1": (64, 3, 7, 7)} | {
    f"layer{stage}.{block}.conv{number}": (64 * stage, 64 * stage, 3, 3)
    for stage in (1, 2, 3, 4)
    for block in (0, 1)
    for number in (1, 2)
} | {"fc": (1000, 512)}  # fmt: skip
BERT = {"bert.embeddings.words": (1000, 64)} | {
    f"bert.encoder.layer.{layer}.{part}": (64, 64) for layer in range(12) for part in ("query", "key", "output.dense")
} | {"classifier": (2, 64)}  # fmt: skip

TRAINING = Training(lr=0.1, distill=0.5, batch_size=128, epoch=100)

names = st.lists(st.sampled_from("abc12"), min_size=1, max_size=4).map(".".join)
shapes = st.dictionaries(names, st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=40)


def patterns(of: dict[str, tuple[int, ...]]) -> list[str]:
    return [line.pattern for line in propose_ratios(of)]


def test_few_layers_have_a_line_each() -> None:
    lenet5 = {"1": (6, 1, 5, 5), "4": (96, 6, 5, 5), "8": (720, 400), "10": (84, 120), "12": (10, 84)}
    lines = propose_ratios(lenet5)
    assert [line.pattern for line in lines] == list(lenet5)
    assert [line.high for line in lines] == [0.8, 0.99, 0.998, 0.99, 0.9]


def test_layers_of_larger_models_share_lines_by_their_names() -> None:
    assert patterns(RESNET) == ["conv1", "fc", "layer1.0.*", "layer1.1.*", "layer2.0.*", "layer2.1.*", "layer3.0.*",
                                "layer3.1.*", "layer4.0.*", "layer4.1.*"]  # fmt: skip
    assert patterns(BERT) == ["bert.embeddings.words", "classifier", "bert.encoder.layer.*"]
    assert patterns({str(number): (30, 30) for number in range(20)}) == ["19", "*"]


@given(shapes)
@settings(max_examples=100, deadline=None)
def test_every_layer_has_a_ratio_whatever_the_names(of: dict[str, tuple[int, ...]]) -> None:
    lines = propose_ratios(of)
    assert len(lines) <= MOST_PATTERNS
    text = write_proposal({"model": "m", "data": "d"}, ["c"], lines, propose_schedule(1e4, 100), TRAINING)
    space = space_reader.parse(text, "proposed", "it")
    params = space.parameters_for(of)
    assert {f"ratio/{label}" for label in of} <= params.keys()
    own = [
        domain for name, domain in params.items() if name.startswith(("ratio/", "group/")) and isinstance(domain, Range)
    ]
    assert all(0 <= domain.low < domain.high < 1 for domain in own)
    assert len(own) <= len(lines)


def proposed(schedule: Schedule, training: Training, exclude: tuple[str, ...] = ()) -> Space:
    """The space of ResNet-18 that is written for them."""
    text = write_proposal({"model": "m", "data": "d"}, ["c"], propose_ratios(RESNET), schedule, training, exclude)
    return space_reader.parse(text, "proposed", "it")


def test_a_slow_model_begins_at_fixed_ratios() -> None:
    space = proposed(
        propose_schedule(2000, 37), dataclasses.replace(TRAINING, batch_size=32, sample=320, measured=False)
    )
    assert [point["ratio"] for point in space.initial_points] == list(POINTS)
    assert space.initial.trials == 0
    assert (space.parameters["batch_size"], space.parameters["sample"], space.budget) == (32, 320, 15)
    assert {f"ratio/{label}" for label in RESNET} <= space.parameters_for(RESNET).keys()


def test_a_very_slow_model_is_pruned_gradually() -> None:
    space = proposed(propose_schedule(400, 37), dataclasses.replace(TRAINING, measured=False))
    plan = space.midpoint(RESNET).to_plan()
    assert (plan.rounds, plan.schedule, plan.steps, plan.final_steps) == (8, "geometric", 20, 20)
    assert (space.budget, space.refine.share, space.pruners) == (2, 0.0, ("mag",))
    assert [point["ratio"] for point in space.initial_points] == [POINTS[-1]]


def test_layers_may_be_left_whole() -> None:
    space = proposed(propose_schedule(1e6, 400), TRAINING, ("fc",))
    assert "ratio/fc" not in space.parameters_for(RESNET)
    assert space.initial.trials == 16
