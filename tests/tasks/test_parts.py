import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.tasks.parts import Part


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
