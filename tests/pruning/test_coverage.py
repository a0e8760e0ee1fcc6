import pytest
import torch
from torch import nn
from toys import Conv, Recurrent, Tied, Twice, mlp

from tune_prune.pruning.coverage import LeftOut, measure_coverage


@pytest.mark.parametrize(("model", "weights"), [(mlp, 1088), (Conv, 452), (Tied, 4096 + 256), (Twice, 4096 + 256)])
def test_all_weights_of_linear_layers_and_convolutions_are_counted(model: type[nn.Module], weights: int) -> None:
    found = measure_coverage(model())
    assert (found.counted, found.total, found.share, found.left_out) == (weights, weights, 1.0, [])
    assert found.describe() == f"compression counts {weights:,} of the model's {weights:,} weights (100 %)"


def test_what_cannot_be_pruned_is_named() -> None:
    found = measure_coverage(Recurrent())
    assert (found.counted, found.total) == (64, 64 + 128 + 4 * 16 * (8 + 16))
    assert found.left_out == [LeftOut("rows", "LSTM", 1536), LeftOut("place", "Parameter", 128)]
    assert found.describe() == (
        "warning: compression counts 64 of the model's 1,728 weights (3.704 %); not pruned and not counted: "
        "rows (LSTM, 1,536), place (Parameter, 128)"
    )


class Projection(nn.Module):
    """A linear layer of its own kind, like Conv1D of Hugging Face's GPT-2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(inputs, outputs)), nn.Parameter(torch.ones(outputs))


def test_positions_in_a_sequential_and_a_shared_embedding() -> None:
    embedding, head = nn.Embedding(10, 4), nn.Linear(4, 10)
    model = nn.Sequential(embedding, *(Projection(4, 4) for _ in range(4)), nn.Sequential(nn.LayerNorm(4), head))
    found = measure_coverage(model)
    assert [one.module for one in found.left_out] == ["1", "2", "3", "4", "5"]
    assert (found.counted, found.total) == (40, 40 + 40 + 64)
    assert found.describe().endswith(": 1 (Embedding, 40), 2 (Projection, 16), 3 (Projection, 16), 2 more")
    head.weight = embedding.weight  # which is then pruned in both, and counted once
    assert (measure_coverage(model).counted, measure_coverage(model).total) == (40, 40 + 64)


def test_nine_tenths_are_no_reason_to_warn() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(9, 10), "rest": nn.Embedding(1, 10)})
    assert not measure_coverage(model).describe().startswith("warning")
    model["more"] = nn.Embedding(1, 1)
    assert measure_coverage(model).describe().startswith("warning")


def test_a_model_without_weights() -> None:
    assert measure_coverage(nn.ReLU()).share == 1.0
