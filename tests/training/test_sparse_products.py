import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import seeded

from tune_prune.training.sparse_products import Pattern, multiply


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_pattern_is_its_mask(rows: int, columns: int, seed: int) -> None:
    mask = (torch.rand(rows, columns, generator=seeded(seed)) < 0.5).float()
    pattern = Pattern.of(mask)
    values = torch.arange(1.0, 1 + float(mask.sum()))
    dense = torch.zeros(rows, columns).masked_scatter(mask != 0, values)
    assert torch.equal(pattern.matrix(values).to_dense(), dense)
    assert torch.equal(pattern.transposed(values).to_dense(), dense.t())


def test_what_is_in_the_result_before_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda _, *shape: torch.full(shape, torch.nan))
    mask = torch.zeros(3, 4)
    mask[1, 2] = 1  # other rows are empty
    pattern = Pattern.of(mask)
    product = multiply(pattern.matrix(torch.tensor([2.0])), torch.ones(4, 5))
    assert torch.equal(product, torch.tensor([[0.0], [2.0], [0.0]]).expand(3, 5))
