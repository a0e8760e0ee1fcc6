import pickle

from tune_prune.common.errors import UserError, describe_error, format_names


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
