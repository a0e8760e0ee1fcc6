import pytest
from torch import nn
from toys import Conv, Mixed, Mixer, Recurrent, Tied, Twice, Words, computed, mlp

from tune_prune.pruning.coverage import LeftOut, measure_coverage


@pytest.mark.parametrize(("model", "weights"), [(mlp, 1088), (Conv, 452), (Tied, 4096 + 256), (Twice, 4096 + 256)])
def test_all_weights_of_linear_layers_and_convolutions_are_counted(model: type[nn.Module], weights: int) -> None:
    found = measure_coverage(model())
    assert (found.counted, found.total, found.share, found.left_out) == (weights, weights, 1.0, [])
    assert found.describe() == f"compression counts {weights:,} of the model's {weights:,} weights (100 %)"


def test_what_cannot_be_pruned_is_named() -> None:
    found = measure_coverage(Mixed())
    assert (found.counted, found.total) == (64, 64 + 1024 + 64)
    assert found.left_out == [LeftOut("mixer", "Mixer", 1024), LeftOut("place", "Parameter", 64)]
    assert found.describe() == (
        "warning: compression counts 64 of the model's 1,152 weights (5.556 %); not pruned and not counted: "
        "mixer (Mixer, 1,024), place (Parameter, 64)"
    )


def test_recurrent_layers_and_embeddings_count() -> None:
    found = measure_coverage(Recurrent())
    assert (found.counted, found.left_out) == (64 + 4 * 16 * (8 + 16), [LeftOut("place", "Parameter", 128)])
    found = measure_coverage(Words())  # the table once
    assert (found.counted, found.total, found.left_out) == (160 + 4 * 24 * 8, 160 + 4 * 24 * 8, [])


def test_the_norms_of_a_weight_norm_are_no_weights_that_can_be_pruned() -> None:
    found = measure_coverage(computed("weight_norm"))
    assert found.counted == 72 + 72 * 16 + 64
    assert [one.weights for one in found.left_out] == [16, 8]
    assert measure_coverage(computed("spectral_norm")).share == 1


def test_positions_in_a_sequential_and_a_shared_weight() -> None:
    mixers = [Mixer(4, 4) for _ in range(4)]
    model = nn.Sequential(*mixers, nn.Sequential(nn.LayerNorm(4), Mixer(4, 1)), nn.Linear(4, 4))
    found = measure_coverage(model)
    assert [one.module for one in found.left_out] == ["1", "2", "3", "4", "5/1"]
    assert (found.counted, found.total) == (16, 16 + 64 + 4)
    assert found.describe().endswith(": 1 (Mixer, 16), 2 (Mixer, 16), 3 (Mixer, 16), 2 more")
    mixers[0].kernel = model[5].weight  # which is then pruned in both, and counted once
    assert (measure_coverage(model).counted, measure_coverage(model).total) == (16, 16 + 48 + 4)


def test_nine_tenths_are_no_reason_to_warn() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(9, 10), "rest": Mixer(1, 10)})
    assert not measure_coverage(model).describe().startswith("warning")
    model["more"] = Mixer(1, 1)
    assert measure_coverage(model).describe().startswith("warning")


def test_a_model_without_weights() -> None:
    assert measure_coverage(nn.ReLU()).share == 1.0
