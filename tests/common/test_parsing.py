import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tune_prune.common import parsing
from tune_prune.common.parsing import MAX_DEPTH, MAX_DIGITS, MAX_KEY, parse_json, parse_toml, read_json, read_text

ONE_LINE = r"^[^\n]+$"
DEEP = MAX_DEPTH + 1


TOO_DEEP, TOO_LARGE = f"more than {MAX_DEPTH} lists or tables", f"a number has more than {MAX_DIGITS} digits"
LONG_KEY, MANY_PARTS = "a key is longer than 1,000 characters", "a dotted key has more than 16 parts"


def check_refused(parse: Callable[[str], object], text: str, said: str) -> None:
    with pytest.raises(ValueError, match=ONE_LINE) as refused:
        parse(text)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 1_000_000, TOO_DEEP),
        ("[" * DEEP + "]" * DEEP, TOO_DEEP),
        ('{"a": ' * 100_000, TOO_DEEP),
        ("9" * 5_000, TOO_LARGE),
        ("9" * (MAX_DIGITS + 1), TOO_LARGE),
        ("-" + "9" * MAX_DIGITS, TOO_LARGE),
        ('{"' + "k" * (MAX_KEY + 1) + '": 1}', LONG_KEY),
        ('"a', "Unterminated string"),
    ],
    ids=lambda value: value[:12],
)
def test_json_beyond_the_bounds_is_a_value_error_of_one_line(text: str, said: str) -> None:
    check_refused(parse_json, text, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 100_000, TOO_DEEP),
        ("a = " + "{a=" * 100_000, TOO_DEEP),
        ("a = " + "9" * 5_000, "Exceeds the limit"),  # of Python itself
        ("a = " + "9" * (MAX_DIGITS + 1), TOO_LARGE),
        ("a = 0x" + "f" * 5_000, TOO_LARGE),
        ("k" * (MAX_KEY + 1) + " = 1", LONG_KEY),
        (".".join("a" * 17) + " = 1", MANY_PARTS),
        (".".join("a" * 16_000) + " = 1", MANY_PARTS),
        ("[" + " . ".join(["'a'"] * 16_000) + "]", MANY_PARTS),
        ("x = {" + ".".join(['"a"'] * 16_000) + " = 1}", MANY_PARTS),
    ],
    ids=lambda value: value[:12],
)
def test_toml_beyond_the_bounds_is_a_value_error_of_one_line(text: str, said: str) -> None:
    check_refused(parse_toml, text, said)


def test_what_keeps_the_bounds_is_read_as_it_is() -> None:
    nested: object = 10**MAX_DIGITS - 1
    for _ in range(MAX_DEPTH):
        nested = [nested]
    assert parse_json(str(nested)) == nested
    dots = "a." * 1_000
    text = f'a.b.c = 1  # don\'t {dots}\n"{dots[:99]}" = \'{dots}\'\nt = \'\'\'\n"{dots}\'\'\'\nu = """\\"{dots}"""\n'
    assert parse_toml(text) == {"a": {"b": {"c": 1}}, dots[:99]: dots, "t": f'"{dots}', "u": f'"{dots}'}


@pytest.mark.parametrize(
    "text", ['"\\' * 500_000, '"' * 1_000_000, "a" * 1_000_000, "'" * 500_000 + "." * 500_000], ids=range(4)
)
def test_what_is_looked_for_before_parsing_takes_linear_time(text: str) -> None:
    began = time.process_time()
    for parse in (parse_json, parse_toml):
        with pytest.raises(ValueError, match=ONE_LINE):
            parse(text)
    assert time.process_time() - began < 60  # a square would take hours


def test_a_file_is_read_no_further_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="longer than"):
        read_text(Path("/dev/zero"))  # which has no end
    (tmp_path / "a.json").write_text("[1, 2]")
    assert read_json(tmp_path / "a.json") == [1, 2]
    monkeypatch.setattr(parsing, "MAX_LENGTH", 5)
    with pytest.raises(ValueError, match="longer than 5"):
        read_json(tmp_path / "a.json")
