from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.common.errors import UserError
from tune_prune.common.registry import Registry


@given(st.lists(st.text(), unique=True))
def test_it_reads_like_a_dict_in_the_order_of_adding(names: list[str]) -> None:
    registry: Registry[int] = Registry("number")
    for number, name in enumerate(names):
        registry.add(name, number)
    assert list(registry) == list(registry.names()) == names
    assert [registry[name] for name in registry] == list(range(len(names)))
    assert len(registry) == len(names)
    assert all(name in registry for name in names)


def test_register_returns_what_it_decorates() -> None:
    pruners: Registry[Callable[[float], float]] = Registry("pruner")

    @pruners.register("mag")
    def magnitude(weight: float) -> float:
        return abs(weight)

    assert pruners["mag"] is magnitude
    assert magnitude(-2) == 2


def test_a_name_twice_is_refused_and_the_first_stays() -> None:
    registry: Registry[int] = Registry("pruner")
    registry.add("mag", 1)
    with pytest.raises(ValueError, match="pruner 'mag' is registered already"):
        registry.add("mag", 2)
    with pytest.raises(ValueError, match="pruner 'mag' is registered already"):
        registry.register("mag")(2)
    assert registry["mag"] == 1


def test_a_miss_lists_what_there_is() -> None:
    registry: Registry[int] = Registry("pruner")
    for name in ("mag", "random", "l1"):
        registry.add(name, 0)
    with pytest.raises(UserError) as caught:
        registry["foo"]
    assert str(caught.value) == "unknown pruner 'foo'; known: mag, random, l1"
    assert "foo" not in registry


def test_a_miss_in_an_empty_registry() -> None:
    with pytest.raises(UserError, match="unknown pruner 'foo'; known: none"):
        Registry[int]("pruner")["foo"]
