"""Proposed spaces: every layer has a ratio, lines are few, and times are kept."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tune_prune.hpo import space_reader
from tune_prune.hpo.parameters import Range
from tune_prune.hpo.space_proposal import (
    LEAST_TRIALS,
    MOST_PATTERNS,
    TRIALS,
    propose_ratios,
    propose_schedule,
    write_proposal,
)

RESNET = {"conv1": (64, 3, 7, 7)} | {
    f"layer{stage}.{block}.conv{number}": (64 * stage, 64 * stage, 3, 3)
    for stage in (1, 2, 3, 4)
    for block in (0, 1)
    for number in (1, 2)
} | {"fc": (1000, 512)}  # fmt: skip
BERT = {"bert.embeddings.words": (1000, 64)} | {
    f"bert.encoder.layer.{layer}.{part}": (64, 64) for layer in range(12) for part in ("query", "key", "output.dense")
} | {"classifier": (2, 64)}  # fmt: skip

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
    text = write_proposal({"model": "m", "data": "d"}, ["c"], lines, propose_schedule(1e4, 100), 0.1, 100, 0.5)
    space = space_reader.parse(text, "proposed", "it")
    params = space.parameters_for(of)
    assert {f"ratio/{label}" for label in of} <= params.keys()
    own = [
        domain for name, domain in params.items() if name.startswith(("ratio/", "group/")) and isinstance(domain, Range)
    ]
    assert all(0 <= domain.low < domain.high < 1 for domain in own)
    assert len(own) <= len(lines)


@given(st.floats(1, 1e7), st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_a_schedule_takes_about_the_steps_that_there_are(steps: float, epoch: int) -> None:
    found = propose_schedule(steps, epoch)
    assert LEAST_TRIALS <= found.trials <= TRIALS
    taken = found.trials * ((1 - found.share) * 3 * found.steps + found.share * found.refine_steps)
    fewest = LEAST_TRIALS * 300 * (3 * 0.6 + 12 * 0.4)
    assert taken <= max(1.01 * steps, fewest)


def test_time_makes_trials_longer_first_and_then_more() -> None:
    brief, long = propose_schedule(12_000, 430), propose_schedule(50_000, 390)
    assert (brief.trials, brief.steps, brief.share) == (12, 143, 0.4)
    assert (long.trials, long.steps, long.refine_steps) == (100, 42, 3780)  # about what LeNet-5's space has
