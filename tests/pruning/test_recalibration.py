import copy

import pytest
import torch
from torch import Tensor, nn
from toys import Conv, seeded, unlabelled

from tune_prune.pruning import iterative, masks
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.recalibration import IMAGES, recalibrate, scaled_dropout
from tune_prune.tasks.splits import Data, as_float


class Norms(nn.Module):
    """Two batch norms with dropout between; the inputs of the second depend on the first."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3), nn.Dropout(0.5), nn.Linear(3, 2), nn.BatchNorm1d(2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.parts(inputs)


def test_means_and_variances_of_what_each_layer_sees() -> None:
    model, inputs = Norms(), 3 + 2 * torch.randn(60, 3, generator=seeded(0))
    model.train()(inputs)  # so that they are something else
    recalibrate(model, unlabelled(inputs))
    first, _, linear, second = model.parts
    assert torch.allclose(first.running_mean, inputs.mean(0), atol=1e-5)
    assert torch.allclose(first.running_var, inputs.var(0), atol=1e-5)
    # the first layer normalises by the batch's statistics
    second_inputs = linear((inputs - inputs.mean(0)) / (inputs.var(0, unbiased=False) + first.eps).sqrt())
    assert torch.allclose(second.running_mean, second_inputs.mean(0), atol=1e-5)
    assert torch.allclose(second.running_var, second_inputs.var(0), atol=1e-5)
    assert first.momentum == 0.3
    assert not any(module.training for module in model.modules())


def test_of_several_batches_the_mean() -> None:
    model, inputs = Norms(), torch.randn(60, 3, generator=seeded(0))
    recalibrate(model, unlabelled(inputs), batch_size=20)
    assert torch.allclose(model.parts[0].running_mean, inputs.mean(0), atol=1e-5)
    assert torch.allclose(
        model.parts[0].running_var, torch.stack([p.var(0) for p in inputs.split(20)]).mean(0), atol=1e-5
    )


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images_change_nothing(n: int) -> None:
    model = Norms()
    before = copy.deepcopy(model.state_dict())
    recalibrate(model, unlabelled(torch.randn(n, 3)))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_network_that_was_pruned_but_not_retrained(toy_data: Data) -> None:
    state = iterative.initial_state(Conv())
    plan = Plan({"features.0": 0.7}, {"features.0": "mag"}, rounds=1)
    next(iterative.prune(state, plan, toy_data.train, toy_data.validation, 0))
    sample = as_float(toy_data.train.inputs)
    assert len(sample) <= IMAGES  # so that all of the toy's images are in it
    seen = state.model.features[0](sample)
    assert torch.allclose(state.model.features[1].running_mean, seen.mean((0, 2, 3)), atol=1e-4)
    assert masks.compression(state.masks) > 0


# Dropout


def with_dropout() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.4), nn.Linear(4, 8), nn.Dropout2d(0.2)
    )


def test_the_rate_falls_with_the_root_of_what_its_layer_keeps() -> None:
    made = with_dropout()
    mask = masks.dense_masks(made)
    mask["5"][:6] = 0  # a quarter is kept
    mask["1"][:] = 0
    with scaled_dropout(made, mask):
        assert [made[1].p, made[3].p, made[5].p] == pytest.approx([0.25, 0.2, 0.2])
    assert [made[1].p, made[3].p, made[5].p] == [0.5, 0.4, 0.2]


def test_the_rates_come_back_after_an_error() -> None:
    made = with_dropout()
    mask = masks.dense_masks(made)
    mask["5"][:4] = 0
    with pytest.raises(RuntimeError), scaled_dropout(made, mask):
        raise RuntimeError
    assert made[1].p == 0.5
    assert all(torch.equal(kept, torch.ones_like(kept)) for kept in [mask["1"]])
