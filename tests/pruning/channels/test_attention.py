"""An attention that lost heads computes what the whole one does where those heads' weights are zero."""

import copy

import pytest
import torch
from random_networks import remove_at_random
from torch import Tensor, nn

from tune_prune.export.compaction import compact, find_removable
from tune_prune.export.resizing import load_resized, own_state
from tune_prune.pruning.channels.attention import NarrowAttention, narrow_attention
from tune_prune.pruning.channels.finding import find_groups


class Model(nn.Module):
    """[n, 6, 12] -> [n, 6, 3]."""

    def __init__(self, **how: object) -> None:
        super().__init__()
        self.before, self.attention = nn.Linear(12, 12), nn.MultiheadAttention(12, 4, batch_first=True, **how)
        self.after = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(self.attention(x, x, x, need_weights=False)[0])


def without_two_heads(model: nn.Module, x: Tensor) -> None:
    groups = [group for group in find_groups(model, x) if group.name.startswith("attention.in") or ".q_" in group.name]
    (heads,) = groups
    assert heads.count == 4
    remove_at_random(model, groups, 0.5)


@pytest.mark.parametrize("bias", [True, False])
def test_heads_leave_a_model(bias: bool) -> None:
    torch.manual_seed(0)
    model, x = Model(bias=bias).eval(), torch.randn(2, 6, 12)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    assert "attention.in_proj" in [group.name for group in find_removable(model, x).groups]
    without_two_heads(model, x)
    made = compact(model, x)
    assert made.attention.in_proj_weight.shape == (18, 12)
    torch.testing.assert_close(made(x), model(x))
    again = Model(bias=bias).eval()
    load_resized(again, own_state(made), "a")
    assert torch.equal(again(x), made(x))


MASKS = {
    "none": {},
    "padding": {"key_padding_mask": torch.tensor([[False] * 4 + [True] * 2, [False] * 6])},
    "mask": {"attn_mask": torch.zeros(6, 6).masked_fill(torch.rand(6, 6) < 0.3, -5.0)},
    "causal": {"attn_mask": nn.Transformer.generate_square_subsequent_mask(6), "is_causal": True},
    "by head": {"attn_mask": torch.rand(8, 6, 6)},
}


@pytest.mark.parametrize("given", MASKS)
@pytest.mark.parametrize("how", [{}, {"batch_first": True}, {"kdim": 12, "vdim": 12}, {"bias": False}])
def test_a_whole_attention_is_computed_as_torch_does(given: str, how: dict[str, object]) -> None:
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(12, 4, **how).eval()
    narrow = copy.deepcopy(whole)
    narrow_attention(narrow, 12)
    assert isinstance(narrow, NarrowAttention)
    q, kv = torch.randn(2, 6, 12), torch.randn(2, 6, 12)
    if not how.get("batch_first"):
        q, kv = q.transpose(0, 1), kv.transpose(0, 1)
    for need_weights in (True, False):
        for average in (True, False):
            flags = MASKS[given] | {"need_weights": need_weights, "average_attn_weights": average}
            expected, found = whole(q, kv, kv, **flags), narrow(q, kv, kv, **flags)
            torch.testing.assert_close(found[0], expected[0])
            torch.testing.assert_close(found[1], expected[1])


def test_a_single_sequence() -> None:
    whole = nn.MultiheadAttention(12, 4).eval()
    narrow, x = copy.deepcopy(whole), torch.randn(6, 12)
    narrow_attention(narrow, 12)
    for found, expected in zip(narrow(x, x, x), whole(x, x, x), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_layer_of_a_transformer_loses_heads_and_its_inner_layer() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 4, 20, batch_first=True, activation="gelu")
    model, x = nn.Sequential(layer, nn.Linear(12, 3)).eval(), torch.randn(2, 6, 12)
    groups = find_removable(model, x).groups
    assert [(group.name, group.count) for group in groups] == [("1/self_attn.in_proj", 4), ("1/linear1", 20)]
    assert [group.name for group in find_removable(model, x, "head").groups] == ["1/self_attn.in_proj"]
    remove_at_random(model, groups, 0.5)
    with torch.no_grad():
        torch.testing.assert_close(compact(model, x)(x), model(x), rtol=1e-4, atol=1e-5)
