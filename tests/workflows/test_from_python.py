"""Arguments of `tune_prune.search`: where they go, what a space becomes by them, and what is wrong with them."""

import inspect
import tomllib

import pytest
import searches
from toys import fault, mlp

import tune_prune
from tune_prune.hpo import space_reader
from tune_prune.hpo.parameters import Choice, Domain, Range
from tune_prune.hpo.space import Space
from tune_prune.workflows import from_python
from tune_prune.workflows.from_python import Arguments


def begin(tmp_path: object, **space: object) -> Space:
    """The space of the tests with changed keys."""
    arguments = from_python.sort_arguments({"budget": 3} | space)
    toml = f"{tmp_path}/mine.toml"
    with open(toml, "w") as file:
        file.write("# a comment\n" + searches.SPACE)
    begun = from_python.begin(arguments, toml, print)
    found, text = begun.space, begun.text
    assert begun.config.budget == 3
    assert text is not None
    assert text.startswith("# a comment\n")
    assert space_reader.parse(text, found.name, found.source).ratios == found.ratios
    return found


def test_every_argument_has_a_place() -> None:
    here = {"space", "resume", "run_dir", "quiet", "ratios", "training", "options"}
    parameters = set(inspect.signature(tune_prune.search).parameters)
    assert parameters == here | {*from_python.TASK, *from_python.CONFIG, *from_python.SPACE, *from_python.GOAL}


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        (0.1, 0.1),
        ((0.01, 0.1), Range(0.01, 0.1, log=True)),
        ([0.01, 0.1], Choice((0.01, 0.1))),
        ({"low": 0.01, "high": 0.1}, Range(0.01, 0.1)),
        ((0, 0.1), Range(0.0, 0.1)),
    ],
)
def test_learning_rates_as_a_space_says_them(tmp_path: object, value: object, domain: Domain) -> None:
    found = begin(tmp_path, lr=value)
    assert found.parameters["lr"] == domain
    assert found.refine.lr == pytest.approx({str((0.01, 0.1)): 0.0316228}.get(str(value), found.refine.lr), rel=1e-3)


def test_ratios_and_all_other_keys(tmp_path: object) -> None:
    ratios = {"2": 0.5, "4": (0.1, 0.9), "*": [0.2, 0.3]}
    found = begin(
        tmp_path, ratios=ratios, training={"momentum": (0.8, 0.95), "schedule": "cubic"}, exclude=["6"], rounds=(2, 4),
        pruners="mag", at_most={"macs": 0.5}, distill=0.25,
    )  # fmt: skip
    assert dict(found.ratios) == {"2": 0.5, "4": Range(0.1, 0.9), "*": Choice((0.2, 0.3))}
    assert found.parameters["momentum"] == Range(0.8, 0.95)
    assert (found.parameters["rounds"], found.parameters["schedule"]) == (Range(2, 4), "cubic")
    assert (found.parameters["distill"], found.exclude, found.pruners) == (0.25, ["6"], ("mag",))
    assert found.at_most == {"macs": 0.5}


def test_steps_change_those_that_follow_in_proportion(tmp_path: object) -> None:
    found = begin(tmp_path, steps=6)  # three times as many
    assert (found.parameters["steps"], found.parameters["final_steps"], found.refine.steps) == (6, 30, 60)
    found = begin(tmp_path, steps=6, training={"final_steps": 7})
    assert found.parameters["final_steps"] == 7


def test_a_space_without_changes_stays_as_it_is(tmp_path: object) -> None:
    begun = from_python.begin(Arguments(), "lenet5", print)
    assert begun.text == space_reader.locate("lenet5").read_text(encoding="utf-8")
    assert (begun.config.budget, begun.space.name) == (100, "lenet5")


def test_a_space_for_another_model(tmp_path: object) -> None:
    arguments = from_python.sort_arguments({"model": mlp(), "ratios": {"2": 0.5}})
    begun = from_python.begin(arguments, "lenet5", print)
    space = begun.space
    assert begun.text is not None
    task = tomllib.loads(begun.text)["task"]
    assert task["data"] == "mnist"
    assert space.model == task["model"] == arguments_address(space)


def arguments_address(space: Space) -> str:
    assert "name='Sequential'" in space.model
    return space.model


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ratios": 0.5}, "ratios must be a dictionary of layers or patterns, as {'*': 0.5}, got 0.5"),
        ({"ratios": {"2": 1.5}}, "tune_prune.search: space.ratio.'2': must be a number in [0, 1), got 1.5"),
        ({"lr": object}, "a value must be a str, int, float, bool, date, list or dict, got type"),
        ({"training": {"moment": 1}}, "training: unknown key 'moment'; known: exclude, pruner, schedule"),
        ({"options": {"speed": 1}}, "options: unknown setting 'speed'; known: budget, time_budget"),
        ({"steps": -1}, "tune_prune.search: space.steps: must be a whole number in [0, inf), got -1"),
        ({"pruners": "magg"}, "unknown pruner 'magg'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: object, given: dict[str, object], said: str) -> None:
    assert said in fault(lambda: begin(tmp_path, **given))
