import pytest
import torch
from torch import nn

from tune_prune.pruning import masks
from tune_prune.pruning.recalibration import scaled_dropout


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.4), nn.Linear(4, 8), nn.Dropout2d(0.2)
    )


def test_the_rate_falls_with_the_root_of_what_its_layer_keeps() -> None:
    made = model()
    mask = masks.dense_masks(made)
    mask["5"][:6] = 0  # a quarter is kept
    mask["1"][:] = 0
    with scaled_dropout(made, mask):
        assert [made[1].p, made[3].p, made[5].p] == pytest.approx([0.25, 0.2, 0.2])
    assert [made[1].p, made[3].p, made[5].p] == [0.5, 0.4, 0.2]


def test_the_rates_come_back_after_an_error() -> None:
    made = model()
    mask = masks.dense_masks(made)
    mask["5"][:4] = 0
    with pytest.raises(RuntimeError), scaled_dropout(made, mask):
        raise RuntimeError
    assert made[1].p == 0.5
    assert all(torch.equal(kept, torch.ones_like(kept)) for kept in [mask["1"]])
