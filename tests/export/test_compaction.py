"""Channels without weights or consumers are removed, and the outputs stay the same."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from toys import COMPUTED, Conv, Deciding, Mixer, Recurrent, Tied, computed, fault, mlp, seeded

from tune_prune.export.compaction import compact, find_removable
from tune_prune.export.resizing import load_resized, own_state
from tune_prune.pruning import masks
from tune_prune.tasks.models import build


def inputs(*shape: int) -> torch.Tensor:
    return torch.randn(4, *shape, generator=seeded(1))


def compacted(model: nn.Module, samples: torch.Tensor) -> nn.Module:
    """The compacted model, checked to have the model's outputs."""
    made = compact(model, samples)
    torch.testing.assert_close(made(samples), model.eval()(samples), rtol=1e-5, atol=1e-5)
    return made


def sizes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in masks.prunable(model).values()]


def zero(weight: torch.Tensor, *where: object) -> None:
    with torch.no_grad():
        weight[where] = 0


def test_a_neuron_that_nothing_computes_is_a_bias_of_the_next_layer() -> None:
    model = mlp()
    zero(model[1].weight, [0, 3])
    with torch.no_grad():
        model[1].bias[:] = 0.7
    made = compacted(model, inputs(1, 8, 8))
    assert sizes(made) == [(14, 64), (4, 14)]
    expected = model[3].bias + model[3].weight[:, [0, 3]].sum(1) * 0.7
    torch.testing.assert_close(made[3].bias, expected)


def test_a_neuron_that_nothing_reads_is_gone_and_what_only_it_read() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    zero(model[4].weight, slice(None), 2)  # nothing reads output 2 of the second layer
    zero(model[2].weight, [0, 1, 3], 4)  # and only that output reads output 4 of the first
    assert sizes(compacted(model, inputs(6))) == [(4, 6), (3, 4), (3, 3)]


class HoldsNumber(nn.Module):
    """[n, 6] -> [n, 3]; its code knows that there are eight inner channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(inputs).view(-1, 8)))


def test_why_channels_stay_that_the_code_counts() -> None:
    found = find_removable(HoldsNumber(), inputs(6))
    assert [group.name for group in found.groups] == ["second"]
    assert found.staying["first"].startswith(
        "the code of the model does not work with fewer of them: it fails at test_compaction.py:"
    )
    assert "`return self.last(self.second(self.first(inputs).view(-1, 8)))`" in found.staying["first"]


def test_filters_go_through_batch_norm_pooling_and_flattening() -> None:
    model = Conv().eval()
    torch.nn.init.normal_(model.features[1].running_mean)
    zero(model.features[4].weight, slice(None), 1)  # nothing reads the first convolution's second filter
    zero(model.head.weight, slice(None), slice(4, 8))  # nor the second filter of the other: four positions of it
    made = compacted(model, inputs(1, 8, 8))
    assert sizes(made) == [(3, 1, 3, 3), (7, 3, 3, 3), (4, 28)]
    assert made.features[1].num_features == 3
    assert (made.features[0].out_channels, made.features[4].in_channels) == (3, 3)


def test_a_constant_that_padding_interrupts_stays_unless_it_is_zero() -> None:
    def convolutions(bias: float, padding: int) -> nn.Sequential:
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=padding))
        zero(model[0].weight, 1)
        with torch.no_grad():
            model[0].bias[1] = bias
        return model

    assert sizes(compacted(convolutions(0.5, 1), inputs(1, 8, 8)))[0] == (3, 1, 3, 3)
    assert sizes(compacted(convolutions(-0.5, 1), inputs(1, 8, 8)))[0] == (2, 1, 3, 3)  # after the ReLU
    assert sizes(compacted(convolutions(0.5, 0), inputs(1, 8, 8)))[0] == (2, 1, 3, 3)


def test_a_bias_is_made_where_there_was_none() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3, bias=False))
    zero(model[0].weight, 2)
    assert sizes(compacted(model, inputs(6))) == [(4, 6), (3, 4)]


def test_a_layer_that_lost_everything_keeps_one_output() -> None:
    model = mlp()
    zero(model[1].weight)
    assert sizes(compacted(model, inputs(1, 8, 8))) == [(1, 64), (4, 1)]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.back, self.head = nn.Conv2d(6, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        x = x + self.back(functional.relu(self.inner(x)))
        return self.head(functional.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return torch.cat([self.one(x), self.other(x)], dim=1)


def test_what_is_added_goes_where_nothing_computes_any_of_it() -> None:
    model = Residual()
    for layer, outputs in ((model.first, [0, 1]), (model.inner, [0, 1]), (model.back, [1, 2])):
        zero(layer.weight, outputs)
        torch.nn.init.zeros_(layer.bias)
    assert sizes(compacted(model, inputs(1, 8, 8))) == [(3, 1, 3, 3), (4, 3, 3, 3), (3, 4, 3, 3), (2, 3)]


def test_what_one_of_two_readers_reads_stays() -> None:
    model = Branches()
    zero(model.one.weight, slice(None), [1, 2])
    zero(model.other.weight, slice(None), [2, 3])
    assert sizes(compacted(model, inputs(8))) == [(5, 8), (3, 5), (3, 5)]


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 3))


def transposed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3))


def tokens() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (1, 8, 8)),
    "convolutions": (Conv, (1, 8, 8)),
    "tied": (Tied, (1, 8, 8)),
    "residual": (Residual, (1, 8, 8)),
    "branches": (Branches, (8,)),
    "grouped": (grouped, (2, 12, 12)),
    "transposed": (transposed, (1, 8, 8)),
    "tokens": (tokens, (7, 5)),
    "as many tokens as features": (tokens, (6, 5)),
    "lenet5": (lambda: build("lenet5"), (1, 28, 28)),
}


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), share=st.floats(0.3, 0.99))
@settings(max_examples=15)
def test_outputs_stay_whatever_is_pruned(kind: str, seed: int, share: float) -> None:
    factory, shape = KINDS[kind]
    torch.manual_seed(seed)
    model = factory().eval()
    with torch.no_grad():
        for weight in masks.prunable(model).values():
            rows = torch.rand(len(weight)) < share  # whole outputs, and single weights
            weight[rows] = 0
            weight[torch.rand_like(weight) < share] = 0
    made = compacted(model, inputs(*shape))
    count = sum(weight.numel() for weight in masks.prunable(model).values())
    assert sum(weight.numel() for weight in masks.prunable(made).values()) <= count
    # and its weights can be loaded into the model's code
    again = factory().eval()
    load_resized(again, own_state(made), "x")
    assert torch.equal(again(inputs(*shape)), made(inputs(*shape)))


class Steps(nn.Module):
    """[n, 6, 5] -> [n, 3]: a linear layer of every step, a recurrent layer, and a linear layer of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.steps, self.after = nn.Linear(5, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.after(self.steps(self.before(inputs))[0][:, -1])


class Looked(nn.Module):
    """[n, 1, 8, 8] -> [n, 4], by a table of the signs of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(2, 8), nn.Linear(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.table((inputs > 0).long()).mean((1, 2, 3)))


@pytest.mark.parametrize(
    ("factory", "shape"),
    [
        (Steps, (6, 5)),
        (Recurrent, (1, 8, 8)),
        (Looked, (1, 8, 8)),
        (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), Mixer(5, 4), nn.Linear(4, 3)), (6,)),
        *((lambda kind=kind: computed(kind), (1, 8, 8)) for kind in COMPUTED if kind != "pruned"),
    ],
)
def test_channels_that_other_layers_read_or_compute_stay(
    factory: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = factory().eval()
    with torch.no_grad():
        masks.apply(model, {k: torch.ones_like(v).index_fill(0, torch.tensor([0]), 0)
                            for k, v in masks.prunable(model).items()})  # fmt: skip
    assert sizes(compacted(model, inputs(*shape))) == sizes(model)


def test_a_weight_that_is_a_product_with_a_mask_is_smaller_with_it() -> None:
    model = computed("pruned").eval()
    found = masks.dense_masks(model)
    masks.apply(model, found | {"4": found["4"].index_fill(0, torch.tensor([0]), 0)})
    assert sizes(compacted(model, inputs(1, 8, 8))) == [(8, 1, 3, 3), (15, 72), (4, 15)]


def test_a_model_that_branches_on_data_says_where() -> None:
    assert fault(lambda: compact(Deciding(), inputs(1, 8, 8))).startswith("the model branches on data, in inner: ")


def test_weights_of_another_model_do_not_fit() -> None:
    weights = mlp().state_dict()
    assert fault(lambda: load_resized(Conv(), weights, "a.safetensors")).startswith("a.safetensors: ")
    assert fault(lambda: load_resized(mlp(), weights | {"5.weight": torch.zeros(2, 2)}, "a")) == (
        "a: the model has no place for 5.weight"
    )
    del weights["3.bias"]
    assert (
        fault(lambda: load_resized(mlp(), weights, "a"))
        == "a: 3.bias is missing; the file is damaged, or another model's"
    )
