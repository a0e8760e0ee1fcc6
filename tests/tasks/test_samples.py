"""Samples are taken out of batches of any structure, which stays; other batches are named."""

from collections import UserDict
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.tasks.batches import collate
from tune_prune.tasks.samples import take_first, take_samples


class Pair(NamedTuple):
    inputs: Any
    labels: Any


ROWS = torch.arange(12).view(6, 2)
BOXES = [{"box": torch.zeros(at)} for at in range(6)]
IMAGES = [torch.full((6, at + 1, 1), at) for at in range(6)]  # of six channels, as many as samples


@pytest.mark.parametrize(
    ("batch", "taken"),
    [
        (ROWS, ROWS[2:4]),
        ((ROWS, ROWS[:, 0]), (ROWS[2:4], ROWS[2:4, 0])),
        ([ROWS, ROWS[:, 0]], [ROWS[2:4], ROWS[2:4, 0]]),  # a pair, as torch's collation makes it
        ({"ids": ROWS, "name": "a", "scale": torch.tensor(2.0), "more": None, "cached": False},
         {"ids": ROWS[2:4], "name": "a", "scale": torch.tensor(2.0), "more": None, "cached": False}),
        ({"ids": ROWS, "nested": {"mask": ROWS}}, {"ids": ROWS[2:4], "nested": {"mask": ROWS[2:4]}}),
        ({"ids": ROWS, "texts": list("abcdef")}, {"ids": ROWS[2:4], "texts": ["c", "d"]}),
        (UserDict(ids=ROWS), UserDict(ids=ROWS[2:4])),
        (Pair(ROWS, {"more": ROWS}), Pair(ROWS[2:4], {"more": ROWS[2:4]})),
        ((list("abcdef"), BOXES), (["c", "d"], BOXES[2:4])),
        ((IMAGES, BOXES), (IMAGES[2:4], BOXES[2:4])),
        (([ROWS, ROWS + 1], ROWS), ([ROWS[2:4], ROWS[2:4] + 1], ROWS[2:4])),  # two inputs
        (([ROWS] * 6, ROWS), ([ROWS[2:4]] * 6, ROWS[2:4])),  # six inputs of six samples
    ],
)  # fmt: skip
def test_a_batch_of_any_structure(batch: Any, taken: Any) -> None:
    for rows in (slice(2, 4), [2, 3]):
        found = take_samples(batch, rows)
        assert type(found) is type(batch)
        assert repr(found) == repr(taken)


@given(st.integers(2, 9), st.data())
def test_samples_that_are_taken_are_those_that_were_collated(count: int, data: st.DataObject) -> None:
    samples = [{"inputs": torch.full((2,), float(at)), "labels": at, "name": str(at)} for at in range(count)]
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    taken = take_samples(collate(samples), rows)
    assert repr(taken) == repr(collate([samples[row] for row in rows]))


@pytest.mark.parametrize(
    ("batch", "structure"),
    [
        ((torch.ones(5, 2), torch.ones(3)), "(tensor, tensor)"),
        (object(), "object"),
        ((object(), object()), "(object, object)"),
        ({"a": object()}, "{a: object}"),
    ],
)
def test_another_batch_is_named(batch: Any, structure: str) -> None:
    said = f"a batch, {structure}, cannot be taken apart into samples; its tensors would all need a row"
    assert said in fault(lambda: take_samples(batch, [0]))
    assert said in fault(lambda: take_samples(batch, slice(1)))


def test_the_first_samples_or_the_whole_batch() -> None:
    assert repr(take_first({"ids": ROWS}, 2)) == repr({"ids": ROWS[:2]})
    for whole in ({"ids": ROWS, "scale": torch.tensor(2.0)}, (ROWS, torch.ones(3)), ROWS):
        assert take_first(whole, 10) is whole
