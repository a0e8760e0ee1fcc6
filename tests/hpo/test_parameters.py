import datetime
import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.common.errors import UserError
from tune_prune.hpo.parameters import PARAMETERS, Choice, Number, Parameter, Range, midpoint, parse_domain, value_at
from tune_prune.pruning.criteria import criteria
from tune_prune.pruning.plan import Plan
from tune_prune.results.trial_params import TrialParams

WHERE = "a.toml: space.lr"
anything = Number(-math.inf)


def refused(raw: object, check=anything) -> str:
    """The error of `parse_domain`, after the file and the key."""
    message = fault(lambda: parse_domain(raw, check, WHERE))
    assert message.startswith(WHERE)
    return message.removeprefix(WHERE)


def test_the_three_kinds_of_domains() -> None:
    assert parse_domain(0.1, anything, WHERE) == 0.1
    assert parse_domain([0.1, 0.2], anything, WHERE) == Choice((0.1, 0.2))
    assert parse_domain({"low": 1, "high": 4}, anything, WHERE) == Range(1, 4)
    assert parse_domain({"low": 0.1, "high": 0.4, "log": True}, anything, WHERE) == Range(0.1, 0.4, log=True)
    assert parse_domain({"low": 0.0, "high": 1.0, "step": 0.25}, anything, WHERE) == Range(0.0, 1.0, step=0.25)


def test_a_domain_with_one_value_is_fixed() -> None:
    assert parse_domain([3], anything, WHERE) == 3
    assert parse_domain({"low": 2, "high": 2}, anything, WHERE) == 2


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], ": the list of choices is empty; give at least one value"),
        ({}, ": a range needs both low and high"),
        ({"low": 1}, ": a range needs both low and high"),
        ({"high": 1}, ": a range needs both low and high"),
        (
            {"low": 1, "high": 2, "max": 3},
            ": unknown key 'max'; did you mean high? known: low, high, log, step",
        ),
        ({"low": 0.5, "high": 0.1}, ": low 0.5 is above high 0.1; swap them"),
        ({"low": 0, "high": 1, "log": True}, ": a logarithmic range must begin above 0, got low 0"),
        ({"low": -1.5, "high": 1, "log": True}, ": a logarithmic range must begin above 0, got low -1.5"),
        ({"low": 1, "high": 2, "log": 1}, ".log: must be true or false, got 1"),
        ({"low": 1, "high": 2, "log": "yes"}, ".log: must be true or false, got 'yes'"),
        ({"low": 1.0, "high": 2, "step": 0}, ".step: must be a number in [1e-12, inf), got 0"),
        ({"low": 1.0, "high": 2, "step": "a"}, ".step: must be a number in [1e-12, inf), got 'a'"),
        ({"low": 1.0, "high": 2, "step": math.inf}, ".step: must be a number in [1e-12, inf), got inf"),
        ({"low": 1, "high": 2, "step": 1, "log": True}, ": log and step exclude each other; leave one out"),
        (datetime.date(2020, 1, 1), ": must be text, a number or true or false, got datetime.date(2020, 1, 1)"),
        ([[1]], ": must be text, a number or true or false, got [1]"),
        ({"low": [1], "high": 2}, ".low: must be text, a number or true or false, got [1]"),
        ("fast", ": must be a number in [-inf, inf), got 'fast'"),
        ([1, "fast"], ": must be a number in [-inf, inf), got 'fast'"),
        ({"low": 1, "high": "fast"}, ".high: must be a number in [-inf, inf), got 'fast'"),
    ],
)
def test_faults(raw: object, message: str) -> None:
    assert refused(raw) == message


def test_the_check_decides_whether_numbers_are_whole() -> None:
    raw = {"low": 0, "high": 1}
    drawn, counted = parse_domain(raw, Number(0, 1), WHERE), parse_domain(raw, Number(0, 1, whole=True), WHERE)
    assert isinstance(drawn, Range)
    assert isinstance(counted, Range)
    assert (drawn.whole, counted.whole) == (False, True)
    assert refused(raw | {"step": 0.5}, Number(0, whole=True)) == ".step: must be a whole number in [1, inf), got 0.5"
    assert refused({"low": 0, "high": 10**400}, Number(0)).startswith(".high: must be a number in [0, inf), got 1000")


def test_a_range_of_text() -> None:
    assert refused({"low": "a", "high": "b"}, lambda value: None) == (
        ": low and high must be numbers; text is chosen from a list"
    )


@given(st.integers() | st.floats(allow_nan=True) | st.booleans() | st.text())
def test_numbers_in_bounds(value: object) -> None:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    assert (Number(0, 1)(value) is None) == (real and 0 <= value <= 1)
    assert (Number(0, 1, open_high=True)(value) is None) == (real and 0 <= value < 1)
    assert (Number(2)(value) is None) == (real and 2 <= value < math.inf)
    assert (Number(1, whole=True)(value) is None) == (real and isinstance(value, int) and value >= 1)


def test_the_message_states_the_interval() -> None:
    assert Number(0, 1, open_high=True)(1.3) == "must be a number in [0, 1), got 1.3"
    assert Number(0, 1)(1.3) == "must be a number in [0, 1], got 1.3"
    assert Number(1, whole=True)(0.5) == "must be a whole number in [1, inf), got 0.5"
    assert Number(1)(math.inf) == "must be a number in [1, inf), got inf"


def test_which_values_a_domain_contains() -> None:
    assert [value in Range(1, 4) for value in (0, 1, 4, 5, "2")] == [False, True, True, False, False]
    assert [value in Choice(("a", 2)) for value in ("a", 2, "b")] == [True, True, False]


def test_whole_numbers_only_between_whole_numbers() -> None:
    assert [Range(*ends).whole for ends in ((1, 4), (1.0, 4), (1, 4.0), (0.5, 4.5))] == [True, False, False, False]


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
numbers = st.integers() | st.floats()
ends = st.fixed_dictionaries(
    {"low": numbers, "high": numbers}, optional={"log": st.booleans() | values, "step": numbers | values}
)


@given(st.recursive(values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5) | ends)
def test_a_domain_or_a_user_error(raw: object) -> None:
    domain: object = 0
    try:
        domain, message = parse_domain(raw, anything, WHERE), WHERE
    except UserError as error:
        message = str(error)
    assert message.startswith(WHERE)
    if isinstance(domain, Range):
        assert domain.low < domain.high < math.inf
        assert not (domain.log and (domain.low <= 0 or domain.step))
        assert not domain.whole or isinstance(domain.step, int | None)
    else:
        assert isinstance(domain, Choice | int | float)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (3, 3),
        ("mag", "mag"),
        (Choice(("a", "b")), "a"),
        (Range(1.0, 2.0), 1.5),
        (Range(0.01, 1.0, log=True), pytest.approx(0.1)),
        (Range(2, 8), 5),
        (Range(1, 100, log=True), 10),
        (Range(0.0, 1.0, step=0.3), 0.6),
    ],
)
def test_midpoint(domain: Parameter, expected: object) -> None:
    assert midpoint(domain) == expected
    assert not isinstance(domain, Range) or midpoint(domain) in domain


# The table of parameters


def test_every_parameter_is_a_field_of_the_plan_and_reaches_it() -> None:
    names = {f.name for f in fields(Plan)}
    for_prune_alone = {"reload", "scale_dropout", "allow_empty"}  # options of `tune-prune prune`
    assert set(PARAMETERS) - {"pruner"} == names - {"ratios", "pruners"} - for_prune_alone
    training = {name: f"a {name}" for name in PARAMETERS if name != "pruner"}
    plan = TrialParams.from_columns({"ratio/1": 0.5, "pruner": "mag", **training}).to_plan()
    assert {name: getattr(plan, name) for name in training} == training


@pytest.mark.parametrize("f", [f for f in fields(Plan) if f.name in PARAMETERS])
def test_the_defaults_of_the_plan_pass_the_checks(f) -> None:
    assert PARAMETERS[f.name](f.default) is None


@pytest.mark.parametrize("name", criteria)
def test_every_pruner_may_be_named(name: str) -> None:
    assert PARAMETERS["pruner"](name) is None


@given(
    st.floats(0, 1),
    st.sampled_from([Range(0.1, 0.9), Range(0.01, 1.0, log=True), Range(2, 9), Range(0.0, 1.0, step=0.25)]),
)
def test_a_value_at_a_position(position: float, domain: Range) -> None:
    assert value_at(domain, position) in domain
    assert value_at(domain, 0.0) == domain.low
    assert value_at(domain, 1.0) == pytest.approx(domain.high)
    assert value_at(domain, 0.5) == midpoint(domain)


def test_an_option_at_a_position() -> None:
    assert [value_at(Choice(("a", "b", "c")), position) for position in (0.0, 0.34, 0.99)] == ["a", "b", "c"]
    assert value_at("fixed", 0.7) == "fixed"
