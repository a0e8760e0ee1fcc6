from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tune_prune.common.typecheck import check_fields, fits_type


@dataclass
class Example:
    count: int
    share: float = 0.5
    names: list[str] = field(default_factory=list)
    parent: int | None = None


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (int, [0, -3], [True, 1.0, "1", None]),
        (float, [0.5, 3, float("inf")], [False, "0.5", 10**400, None]),
        (bool, [True], [1, 0, "true"]),
        (str, ["", "a"], [b"a", 1, None]),
        (int | None, [1, None], ["", False]),
        (list[int], [[], [1, 2]], [[1, "2"], (1,), {}]),
        (dict[str, float], [{}, {"a": 1}], [{"a": "b"}, {1: 1.0}, []]),
        (Mapping[str, str | float], [{"a": "b", "c": 2.0}], [{"a": None}]),
    ],
)
def test_values_and_types(hint: Any, right: list[object], wrong: list[object]) -> None:
    assert all(fits_type(value, hint) for value in right)
    assert not any(fits_type(value, hint) for value in wrong)


def test_the_field_is_named() -> None:
    check_fields(Example(1, names=["a"], parent=3))
    with pytest.raises(TypeError, match="share must be float, got 'half'"):
        check_fields(Example(1, share="half"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"names must be list\[str\], got \[1\]"):
        check_fields(Example(1, names=[1]))  # type: ignore[list-item]
