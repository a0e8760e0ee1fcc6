import pickle

import pytest

from tune_prune.common.errors import (
    SYNONYMS,
    UserError,
    describe_choice,
    describe_error,
    describe_unknown,
    find_nearest,
    format_names,
    prefix_errors,
)


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert str(UserError("a.conf:1: no such\nlayer\r\n'8'")) == "a.conf:1: no such layer '8'"


def test_a_message_holds_no_escape_sequence_that_it_quotes() -> None:
    said = str(UserError("layer '\x1b[2J\u202eeman'"))
    assert said == r"layer '\x1b[2J\u202eeman'"
    assert str(UserError(said)) == said


def test_an_error_survives_the_way_back_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(UserError("a\nb")))
    assert isinstance(error, UserError)
    assert str(error) == "a b"


def test_names_are_listed_in_their_order() -> None:
    assert format_names(["mag", "random", "l1"]) == "mag, random, l1"
    assert format_names(iter(())) == "none"


def test_another_error_is_described_on_one_line() -> None:
    assert describe_error(ValueError("two\n lines ")) == "ValueError: two lines"


def test_of_a_long_message_the_begin_is_quoted() -> None:
    described = describe_error(ValueError(f"sampler={list(range(10_000))}"))
    assert described.startswith("ValueError: sampler=[0, 1, 2")
    assert described.endswith("[...]")
    assert len(described) < 450


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("magg", "mag"), ("Taylor-1", "taylor1"), ("criterion", "pruner"), ("zebra", ""), ("", ""), ("--", ""),
     ("resnet18", "lab:resnet18"), ("resnet_19", "lab:resnet18"), ("mag", "mag")],
)  # fmt: skip
def test_the_nearest_name(name: str, nearest: str) -> None:
    assert find_nearest(name, ["mag", "taylor1", "pruner"], {"resnet18": "lab:resnet18", "mag": "lab:mag"}) == nearest


def test_what_is_said_of_an_unknown_name() -> None:
    assert describe_unknown("pruner", "foo", ["mag", "l1"]) == "unknown pruner 'foo'; known: mag, l1"
    said = describe_unknown("key", "lo", ["low"], prefix="space.", advice="a number")
    assert said == "unknown key 'space.lo'; did you mean low? known: low, or a number"
    assert describe_choice("tp", ["tpe", "gp"]) == "must be one of tpe, gp, got tp; did you mean tpe?"
    assert describe_choice(3, ["tpe"]) == "must be one of tpe, got 3"


def test_every_synonym_is_of_something_else() -> None:
    for word, meanings in SYNONYMS.items():
        assert word == word.lower()
        assert word.isalpha()
        assert word not in [meaning.replace("_", "") for meaning in meanings]


def test_a_place_before_an_error() -> None:
    for where, said in (("a.toml: task.model", "a.toml: task.model: unknown"), ("", "unknown")):
        with pytest.raises(UserError, match=f"^{said}$"), prefix_errors(where):
            raise UserError("unknown")
    with pytest.raises(ValueError, match="other"), prefix_errors("a"):
        raise ValueError("other")
