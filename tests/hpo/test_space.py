from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.hpo.groups import GroupedRatio
from tune_prune.hpo.parameters import Choice, Domain, Parameter, Range
from tune_prune.hpo.phases import Refinement
from tune_prune.hpo.space import Space
from tune_prune.results.trial_params import TrialParams

Shapes = Mapping[str, tuple[int, ...]]
LENET = dict.fromkeys(["1", "4", "8", "10", "12"], (10, 10))
RESNET = {
    "conv1": (4, 3, 3, 3), "layer1.0.conv1": (4, 4, 3, 3), "layer1.0.conv2": (4, 4, 3, 3),
    "layer2.0.conv1": (12, 4, 3, 3), "fc": (10, 12),
}  # fmt: skip


def space(
    ratios: list[tuple[str, Parameter]], parameters: Mapping[str, Domain] | None = None, initial_points=()
) -> Space:
    return Space(
        name="toy",
        source="toy.toml",
        model="lenet5",
        data="mnist",
        weights=None,
        parameters=parameters or {"pruner": "mag"},
        ratios=ratios,
        acc_tradeoff=0.5,
        budget=10,
        refine=Refinement(),
        initial_points=initial_points,
    )


def layer_domains(ratios: list[tuple[str, Parameter]], labels: Shapes) -> dict[str, Parameter]:
    params = space(ratios).parameters_for(labels)
    return {k.removeprefix("ratio/"): v for k, v in params.items() if k.startswith("ratio/")}


@pytest.mark.parametrize(
    ("ratios", "labels", "expected"),
    [
        ([("1", 0.1), ("1*", 0.2), ("*", 0.3)], LENET, [("1", 0.1), ("4", 0.3), ("8", 0.3), ("10", 0.2), ("12", 0.2)]),
        ([("*", 0.3), ("1", 0.1)], LENET, [(label, 0.3) for label in LENET]),
        ([("8", Range(0.5, 0.9)), ("4", 0.7)], LENET, [("4", 0.7), ("8", Range(0.5, 0.9))]),
        (
            [("layer?.*.conv1", 0.1), ("layer*", 0.2)],
            RESNET,
            [("layer1.0.conv1", 0.1), ("layer1.0.conv2", 0.2), ("layer2.0.conv1", 0.1)],
        ),
    ],
)
def test_the_first_match_counts(ratios: list[tuple[str, Parameter]], labels: Shapes, expected: list[tuple]) -> None:
    assert list(layer_domains(ratios, labels).items()) == expected


def test_a_pattern_that_matches_no_layer() -> None:
    message = fault(lambda: space([("8", 0.5), ("conv*", 0.5)]).parameters_for(LENET))
    assert message == (
        "toy.toml: space.ratio.'conv*' matches no layer of lenet5; layers that can be pruned: 1, 4, 8, 10, 12"
    )
    assert "space.ratio.'Conv1'" in fault(lambda: space([("Conv1", 0.5)]).parameters_for(RESNET))


def test_ratios_first_then_the_others_in_their_order() -> None:
    made = space([("1*", 0.5)], {"pruner": "mag", "rounds": Range(1, 4), "lr": 0.1})
    assert list(made.parameters_for(LENET)) == ["ratio/1", "ratio/10", "ratio/12", "pruner", "rounds", "lr"]


def test_another_choice_of_pruners() -> None:
    made = space([("*", 0.5)], {"rounds": 3, "pruner": Choice(("mag", "random"))})
    assert made.with_pruners(["taylor1"]).parameters == {"rounds": 3, "pruner": "taylor1"}
    assert made.with_pruners(["taylor1", "mag"]).parameters["pruner"] == Choice(("taylor1", "mag"))
    assert made.parameters["pruner"] == Choice(("mag", "random"))
    assert fault(lambda: made.with_pruners(["mag", "magg"])).startswith("unknown pruner 'magg'; did you mean mag?")
    assert fault(lambda: made.with_pruners([])).startswith("--pruners: the list of choices is empty")


# Groups of layers

GROUPS = replace(
    space([("layer?.*.conv1", Range(0.1, 0.9)), ("layer*", Range(0.2, 0.8)), ("*", 0.5)]),
    groups={"layer?.*.conv1": "same"},
    exclude=["fc", "*2"],
)


def test_layers_of_a_group_have_one_ratio_and_excluded_ones_are_left_out() -> None:
    params = GROUPS.parameters_for(RESNET)
    group, *grouped = list(params)[1:4]
    assert list(params) == ["ratio/conv1", group, "ratio/layer1.0.conv1", "ratio/layer2.0.conv1", "pruner"]
    assert (group, params[group]) == ("group/layer?.*.conv1", Range(0.1, 0.9))
    for name in grouped:
        domain = params[name]
        assert isinstance(domain, GroupedRatio)
        assert domain.group.ratios(0.7)[domain.layer] == 0.7
        assert str(domain) == "with group/layer?.*.conv1"
    ratios = GROUPS.midpoint(RESNET).ratios
    assert ratios["layer1.0.conv1"] == ratios["layer2.0.conv1"] == 0.5


def test_an_initial_point_of_a_group_is_the_share_of_its_weights() -> None:
    ratios = {"conv1": 0.9, "layer1.0.conv1": 0.4, "layer2.0.conv1": 0.8}
    group = "group/layer?.*.conv1"  # of which three quarters of the weights are in layer2
    assert GROUPS.level_params(ratios, "mag", RESNET) == {group: pytest.approx(0.7)}
    assert GROUPS.level_params({"layer2.0.conv1": 0.95}, "mag", RESNET) == {group: 0.9}


def test_an_excluded_pattern_that_matches_no_layer() -> None:
    message = fault(lambda: replace(GROUPS, exclude=["layer3.*"]).parameters_for(RESNET))
    assert message.startswith(
        "toy.toml: space.exclude: 'layer3.*' matches no layer of lenet5; layers that can be pruned: "
    )


# Initial points

DRAWN = {"pruner": Choice(("mag", "taylor1")), "rounds": Range(2, 8), "lr": 0.05}
RATIOS = [("1", Range(0.0, 0.6)), ("4", 0.7), ("10", Choice((0.5, 0.9))), ("*", Range(0.5, 0.999))]


@pytest.mark.parametrize(
    ("point", "queued"),
    [
        ({"ratio": 0.55}, {"ratio/1": 0.55, "ratio/8": 0.55, "ratio/12": 0.55}),
        ({"ratio": 0.9}, {"ratio/1": 0.6, "ratio/8": 0.9, "ratio/12": 0.9}),
        ({"ratio": 0}, {"ratio/1": 0.0, "ratio/8": 0.5, "ratio/12": 0.5}),
        ({"ratio": {"1": 0.3, "4": 0.1, "8": 0.1}}, {"ratio/1": 0.3, "ratio/8": 0.5}),
        ({"ratio": {}, "rounds": 8, "pruner": "taylor1", "lr": 0.1}, {"rounds": 8, "pruner": "taylor1"}),
        ({"ratio": {}, "rounds": 9, "pruner": "random", "momentum": 0.5}, {}),
    ],
)
def test_initial_points_stay_within_their_domains(point: dict[str, object], queued: dict[str, object]) -> None:
    assert space(RATIOS, DRAWN, [point]).initial_params(LENET) == [queued]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 20))
def test_every_initial_point_is_within_its_domains(ratio: float, rounds: int) -> None:
    made = space(RATIOS, DRAWN, [{"ratio": ratio, "rounds": rounds}, {"ratio": dict.fromkeys(LENET, ratio)}])
    params = made.parameters_for(LENET)
    for point in made.initial_params(LENET):
        assert all(value in params[key] for key, value in point.items())
        assert {"ratio/1", "ratio/8", "ratio/12"} <= set(point)


def test_an_initial_point_for_a_layer_that_the_model_lacks() -> None:
    made = space([("*", Range(0.1, 0.9))], initial_points=[{"ratio": 0.5}, {"ratio": {"9": 0.5}}])
    message = fault(lambda: made.initial_params(LENET))
    assert message == (
        "toy.toml: initial.point 2: ratio.9 names no layer of lenet5; layers that can be pruned: 1, 4, 8, 10, 12"
    )


def test_one_pruner_a_layer() -> None:
    made = replace(
        space([("8", 0.5), ("1*", Range(0.1, 0.9))], {"pruner": Choice(("mag", "taylor1")), "lr": 0.1},
              initial_points=[{"ratio": 0.5, "pruner": "taylor1"}]),
        pruner_scope="layer",
    )  # fmt: skip
    params = made.parameters_for(LENET)
    both = Choice(("mag", "taylor1"))
    assert [name for name in params if name.startswith("pruner")] == [
        f"pruner/{label}" for label in ("1", "8", "10", "12")
    ]
    assert all(params[name] == both for name in params if name.startswith("pruner/"))
    assert made.initial_params(LENET)[0]["pruner/8"] == "taylor1"
    columns = {"ratio/1": 0.5, "ratio/8": 0.6, "pruner/1": "mag", "pruner/8": "taylor1", "lr": 0.1}
    assert TrialParams.from_columns(columns).to_plan().pruners == {"1": "mag", "8": "taylor1"}
    assert made.pruners == ("mag", "taylor1")
