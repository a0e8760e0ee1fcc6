import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from toys import Conv, Tied, mlp, unlabelled

from tune_prune.export.costs import count_uses, multiply_adds, multiply_adds_share
from tune_prune.pruning import masks
from tune_prune.tasks.models import build


class Attention(nn.Module):
    """[n, 5, 8] -> [n, 4]: attention of 5 tokens, with keys and values of other widths where they are given."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True, kdim=width, vdim=width)
        self.width = width or 8
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        other = inputs[:, :3, :1].expand(-1, -1, self.width)
        return self.head(self.attn(inputs, key=other, value=other, need_weights=False)[0].mean(1))


class Turned(nn.Module):
    """[n, 2, 4, 4] -> [n, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 4, 3, stride=2, groups=2)
        self.down = nn.Conv2d(4, 3, 3, stride=2, padding=1, groups=1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.down(self.up(inputs)).mean((2, 3))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (mlp(), (1, 8, 8)),
        (Conv(), (1, 8, 8)),
        (Tied(), (1, 8, 8)),
        (Turned(), (2, 4, 4)),
        (nn.Sequential(nn.Conv1d(4, 8, 3, groups=4), nn.Flatten(), nn.Linear(8 * 6, 3)), (4, 8)),
        (nn.Sequential(nn.Linear(6, 5), nn.Flatten(), nn.Linear(20, 3)), (4, 6)),  # a layer over tokens
        (build("lenet5"), (1, 28, 28)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_as_torch_counts_them(model: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.rand(2, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(inputs)
    times = count_uses(model, unlabelled(inputs))
    assert (
        multiply_adds(masks.dense_masks(model), times) == counter.get_total_flops() / 2 / 2
    )  # two flops each, two samples


def test_of_attention_by_hand() -> None:
    times = count_uses(Attention(), unlabelled(torch.rand(2, 5, 8)))
    assert times == {"attn.in_proj": pytest.approx((5 + 3 + 3) / 3), "attn.out_proj": 5, "head": 1}
    times = count_uses(Attention(6), unlabelled(torch.rand(2, 5, 8)))
    assert times == {"attn.q_proj": 5, "attn.k_proj": 3, "attn.v_proj": 3, "attn.out_proj": 5, "head": 1}


def test_what_masks_leave() -> None:
    model = Conv()
    times = count_uses(model, unlabelled(torch.rand(3, 1, 8, 8)))
    assert times == {"features.0": 64, "features.4": 16, "head": 1}
    kept = masks.dense_masks(model)
    kept["features.0"].view(-1)[:18] = 0  # half of them
    kept["head"].zero_()
    assert multiply_adds(kept, times) == 18 * 64 + 288 * 16
    assert multiply_adds_share(kept, times) == (18 * 64 + 288 * 16) / (36 * 64 + 288 * 16 + 128)
    assert multiply_adds_share(masks.dense_masks(model), times) == 1
    assert multiply_adds_share(masks.dense_masks(model), dict.fromkeys(times, 0.0)) == 1


def test_the_model_is_left_alone() -> None:
    model = Conv().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_uses(model, unlabelled(torch.rand(3, 1, 8, 8)))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
