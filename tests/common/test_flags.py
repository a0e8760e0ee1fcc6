from dataclasses import dataclass, field
from typing import Any

import pytest
from toys import fault

from tune_prune.common.flags import build, check_settings, declared_settings, flag, flatten, parse_settings


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A group of settings in a field of another."""

    size: int = field(default=1, metadata=flag("Size.", "Inside", check=lambda size: size > 0, rule="above 0"))
    hidden: str = ""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Settings."""

    full_name: tuple[str, ...] | None = field(
        default=None, metadata=flag("Names.", "Outside", parse=lambda text, option: (option, *text.split(",")))
    )
    inner: Inner = field(default_factory=Inner)
    loud: bool = field(default=False, metadata=flag("Loud.", "Outside"))

    def __post_init__(self) -> None:
        check_settings(self)
        check_settings(self.inner)


def test_declared_settings() -> None:
    settings = declared_settings(Outer)
    assert [(name, setting.option, setting.type) for name, setting in settings.items()] == [
        ("full_name", "--full-name", tuple[str, ...] | None),
        ("size", "--size", int),
        ("loud", "--loud", bool),
    ]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"full_name": None, "size": None, "loud": False}, {}),
        ({"full_name": "a,b", "size": None, "loud": True}, {"full_name": ("--full-name", "a", "b"), "loud": True}),
        ({"full_name": None, "size": 0, "loud": False}, {"size": 0}),
        ({"full_name": "", "size": None, "loud": False}, {"full_name": ("--full-name", "")}),
    ],
)
def test_options_that_were_given(options: dict[str, Any], given: dict[str, Any]) -> None:
    assert parse_settings(Outer, options) == given


def test_a_dataclass_is_made_from_flat_values_and_back() -> None:
    values = {"full_name": ("a",), "size": 3, "hidden": "x", "loud": True}
    made = build(Outer, values)
    assert made == Outer(full_name=("a",), inner=Inner(size=3, hidden="x"), loud=True)
    assert flatten(made) == values
    assert build(Outer, {}) == Outer()


def test_a_name_that_is_no_field() -> None:
    with pytest.raises(TypeError, match="colour"):
        build(Outer, {"colour": "red"})


def test_a_rule_that_is_broken() -> None:
    assert fault(lambda: build(Outer, {"size": 0})) == "--size must be above 0, got 0"
