from collections import UserDict
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.tasks.parts import Part, take_rows


@given(count=st.integers(1, 50), ranks=st.integers(1, 9))
def test_parts_share_a_batch_out(count: int, ranks: int) -> None:
    parts = [Part(rank, ranks) for rank in range(ranks)]
    rows = [list(range(count))[part.rows(count)] for part in parts]
    assert all(rows)  # every process has something to compute
    counted = [row for part, own in zip(parts, rows, strict=True) if part.weight(count) for row in own]
    assert counted == list(range(count))
    sizes = [len(own) for part, own in zip(parts, rows, strict=True) if part.weight(count)]
    assert max(sizes) - min(sizes) <= 1


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=30), ranks=st.integers(1, 9))
def test_the_mean_of_weighted_means_is_the_mean(values: list[float], ranks: int) -> None:
    count = len(values)
    means = []
    for part in [Part(rank, ranks) for rank in range(ranks)]:
        own = values[part.rows(count)]
        means.append(part.weight(count) * sum(own) / len(own))
    assert sum(means) / ranks == pytest.approx(sum(values) / count, abs=1e-9)


class Pair(NamedTuple):
    inputs: Any
    labels: Any


ROWS = torch.arange(12).view(6, 2)
BOXES = [{"box": torch.zeros(at)} for at in (2, 3)]


@pytest.mark.parametrize(
    ("batch", "taken"),
    [
        (ROWS, ROWS[2:4]),
        ((ROWS, ROWS[:, 0]), (ROWS[2:4], ROWS[2:4, 0])),
        ([ROWS, ROWS[:, 0]], [ROWS[2:4], ROWS[2:4, 0]]),
        ({"ids": ROWS, "name": "a", "scale": torch.tensor(2.0)}, {"ids": ROWS[2:4], "name": "a", "scale": 2.0}),
        (UserDict(ids=ROWS), UserDict(ids=ROWS[2:4])),
        (Pair(ROWS, {"more": ROWS}), Pair(ROWS[2:4], {"more": ROWS[2:4]})),
        ((list("abcdef"), [{"box": torch.zeros(at)} for at in range(6)]), (["c", "d"], BOXES)),
        (([ROWS] * 6, ROWS), ([ROWS[2:4]] * 6, ROWS[2:4])),  # six inputs of six samples
    ],
)  # fmt: skip
def test_samples_of_a_batch_of_any_structure(batch: Any, taken: Any) -> None:
    found = take_rows(batch, slice(2, 4))
    assert type(found) is type(batch)
    assert repr(found) == repr(taken).replace("'scale': 2.0", "'scale': tensor(2.)")


def test_a_tensor_that_cannot_be_shared_out() -> None:
    said = fault(lambda: take_rows((ROWS, torch.zeros(2, 40)), slice(2)))
    assert said == (
        "a batch of 6 samples has a tensor [2, 40], in (tensor, tensor); only tensors with a row for each sample can "
        "be shared out to several processes"
    )
