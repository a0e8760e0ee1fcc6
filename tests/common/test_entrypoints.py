import importlib
import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.common.entrypoints import call_factory, describe_address, is_address, load, parse_arguments
from tune_prune.common.errors import UserError
from tune_prune.common.import_path import NO_CODE, refuse_code

Write = Callable[[str, str], None]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module that can be imported until the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", sys.modules.copy())

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        sys.modules.pop(name, None)  # that of another test
        importlib.invalidate_caches()

    return write


def message(address: str) -> str:
    """The message of `load` for a wrong address."""
    with pytest.raises(UserError) as caught:
        load(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", ["json:dumps", "a.b.c:d", "_a:B_1", "größe:f"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    ["", ":", "mnist", "a.b", "a:", ":b", "a..b:c", ".a:b", "a:b.c", "a:b:c", "a b:c", "1:2", "host:6379"],
)
def test_no_addresses(text: str) -> None:
    assert not is_address(text)
    assert "write 'package.module:factory'" in message(text)


@given(st.text(alphabet="ab.:_1 ") | st.text())
def test_text_that_is_not_an_address_is_a_user_error(text: str) -> None:
    if not is_address(text):
        message(text)


def test_titles_call_objects_from_python_so() -> None:
    assert describe_address("mine:model(width=3)") == "mine:model(width=3)"
    assert describe_address("lenet5") == "lenet5"
    assert describe_address("tune_prune.tasks.in_memory:model(key='1f')") == "model (handed over from Python)"
    assert describe_address("tune_prune.tasks.in_memory:data(key='1f')") == "data (handed over from Python)"


def test_load_finds_functions_and_classes() -> None:
    assert load("json:dumps") is json.dumps
    assert load("collections:OrderedDict") is OrderedDict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:f", {}),
        ("a:f()", {}),
        ("a:f(n=10, name='x', rate=-1.5, flag=True)", {"n": 10, "name": "x", "rate": -1.5, "flag": True}),
        ("a:f(size=(3, 32, 32), names=['(', 'b)'])", {"size": (3, 32, 32), "names": ["(", "b)"]}),
    ],
)
def test_arguments(text: str, expected: dict[str, object]) -> None:
    assert is_address(text)
    assert parse_arguments(text) == expected


@pytest.mark.parametrize(
    "brackets",
    [
        "(3)",
        "(n=)",
        "(n=1",
        "(n=1))",
        "(n=open('x'))",
        "(**{'n': 1})",
        "(n=1)(m=2)",
        "(n=1).x",
        "(n=1, n=2)",
        "(",
        "(\0)",
    ],
)
def test_arguments_that_are_none(brackets: str) -> None:
    said = message(f"json:dumps{brackets}")
    assert "cannot read its arguments" in said
    assert "write 'package.module:factory'" in said


@given(st.text(alphabet="()=,'n1 *.{}[]\n\\") | st.text())
def test_what_stands_in_brackets_is_read_or_a_user_error(text: str) -> None:
    try:
        parse_arguments(f"a:f({text})")
    except UserError as error:
        assert "\n" not in str(error)


def test_arguments_are_handed_over(module: Write) -> None:
    module("my_lab2", "def power(base, exponent=2): return base ** exponent")
    assert load("my_lab2:power(base=3)")() == 9
    assert load("my_lab2:power(exponent=3)")(2) == 8


def test_a_factory_that_fails(module: Write) -> None:
    module("failing_lab", "def f(n=1):\n if n > 1: raise ValueError('too\\nmany')\n return n")
    assert call_factory("failing_lab:f", "model") == 1
    with pytest.raises(
        UserError, match=r"^model 'failing_lab:f\(n=2\)' fails at failing_lab.py:\d+, `.*` \(ValueError: too many\)$"
    ):
        call_factory("failing_lab:f(n=2)", "model")
    with pytest.raises(UserError, match=r"TypeError: .*unexpected keyword argument 'm'"):
        call_factory("failing_lab:f(m=2)", "data")


def test_load_imports_the_users_own_module(module: Write) -> None:
    module("my_lab", "def tiny(): return 7")
    assert load("my_lab:tiny")() == 7


def test_a_module_that_is_not_there() -> None:
    said = message("no_such_lab.scores:fisher")
    assert "cannot import no_such_lab.scores" in said
    assert "No module named 'no_such_lab'" in said


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(:", "SyntaxError"),
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_fails_says_why(module: Write, source: str, reason: str) -> None:
    module("broken_lab", source)
    said = message("broken_lab:f")
    assert "cannot import broken_lab" in said
    assert reason in said


def test_a_missing_attribute_lists_the_nearest_callables(module: Write) -> None:
    module("near_lab", "def fisher(): ...\ndef zeta(): ...\ndef _fischer(): ...\nfischer_size = 3")
    said = message("near_lab:fischer")
    assert said.endswith("near_lab has no 'fischer'; nearest callables: fisher, zeta")


def test_a_module_without_callables(module: Write) -> None:
    module("empty_lab", "")
    assert message("empty_lab:f").endswith("nearest callables: none")


def test_what_is_found_must_be_callable() -> None:
    assert "version_info is of type version_info" in message("sys:version_info")


def test_no_code_refuses_what_would_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_CODE, "")
    refuse_code(False)
    load("toys:mlp")
    refuse_code(True)
    said = "'toys:mlp' names code to be run, which --no-code refuses; leave that out if you trust it"
    assert message("toys:mlp") == said
    assert message("subprocess:run(args='true', shell=True)").startswith("\"subprocess:run(args='true', shell=True)\"")
