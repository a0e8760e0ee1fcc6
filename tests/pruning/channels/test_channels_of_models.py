"""Half of the channels of every group leave models of other libraries, which then compute what the masked ones do."""

import sys
from pathlib import Path

import pytest
import torch
from random_networks import remove_at_random
from torch import Tensor, nn

from tune_prune.export.compaction import compact, find_removable
from tune_prune.pruning import masks
from tune_prune.pruning.channels.blocks import skipped_blocks
from tune_prune.pruning.channels.tracer import as_batch
from tune_prune.tasks import outputs
from tune_prune.tasks.batches import Batch, call_model, record_calls
from tune_prune.tasks.outputs import ROUNDING

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


def load(key: str, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    """A model of the catalogue, in evaluation mode, and inputs for it."""
    pytest.importorskip(key.partition("/")[0])
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "experiments" / "architectures")
    monkeypatch.delitem(sys.modules, "catalogue", raising=False)
    import catalogue

    torch.manual_seed(0)
    case = catalogue.cases()[key]
    model = case.make()
    with record_calls(model.train()) as calls:
        case.loss(model)
    monkeypatch.delitem(sys.modules, "catalogue")
    return model.eval(), as_batch(model, calls[-1])


def differ(model: nn.Module, other: nn.Module, inputs: Batch) -> float:
    """The largest difference of outputs, as a share of the largest output."""
    with torch.no_grad():
        return outputs.differ(*(call_model(one, inputs) for one in (model, other)))


class Logits(nn.Module):
    """A model of Hugging Face that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model(**batch).logits


def test_the_width_of_a_vision_transformer_leaves() -> None:
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model, inputs = VisionTransformer(32, 8, 2, 4, 24, 48, num_classes=5).eval(), torch.randn(2, 3, 32, 32)
    torch.nn.init.normal_(model.heads.head.weight)  # which are zeros
    found = find_removable(model, inputs)
    assert [group.count for group in found.groups] == [24, 4, 48, 4, 48]
    assert found.staying == {"heads.head": "the model returns them"}
    remove_at_random(model, found.groups, 0.5)
    small = compact(model, inputs)
    assert (small.hidden_dim, small.conv_proj.out_channels) == (12, 12)
    assert differ(model, small, inputs) <= ROUNDING


def test_the_width_of_t5_leaves_where_the_encoders_output_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    t5, inputs = load("transformers/T5ForConditionalGeneration", monkeypatch)
    assert find_removable(t5, inputs).staying["shared"] == "the model returns them"
    model = Logits(t5)
    groups = find_removable(model, (inputs,)).groups
    assert groups[0].name == "model.shared"
    assert len(groups[0].norms) == 12
    remove_at_random(model, groups, 0.5)
    small = compact(model, (inputs,))
    assert small.model.shared.weight.shape == (99, 16)
    assert differ(model, small, (inputs,)) <= ROUNDING


@pytest.mark.parametrize(
    ("key", "blocks"),
    [
        ("torchvision/mobilenet_v3_small", [f"features.{i}" for i in (3, 5, 6, 8, 10, 11)]),
        ("transformers/GPT2LMHeadModel", ["transformer.h.0", "transformer.h.1"]),
        ("transformers/Gemma2ForCausalLM", ["model.layers.0", "model.layers.1"]),  # appends to a cache
        ("transformers/SegformerForSemanticSegmentation", [f"segformer.stages.{i}.blocks.0" for i in range(4)]),
        ("transformers/BloomForCausalLM", ["transformer.h.0", "transformer.h.1"]),  # in a tuple with attention scores
        ("transformers/SwinForImageClassification", [f"swin.encoder.layers.{i}.blocks.0" for i in range(2)]),
        ("transformers/BertForSequenceClassification", []),  # whose norms come after the sums
    ],
)
def test_blocks_leave(key: str, blocks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = load(key, monkeypatch)
    groups = find_removable(model, inputs, "block").groups
    assert sorted(name for group in groups for name in group.blocks) == sorted(blocks)
    remove_at_random(model, groups, 0.9)
    small = compact(model, inputs)
    assert sorted(skipped_blocks(small)) == sorted(blocks)
    assert differ(model, small, inputs) <= ROUNDING


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("torchvision/shufflenet_v2_x0_5", ["stage2.1.branch2.0"]),
        ("timm/lcnet_035", ["conv_stem"]),
        ("transformers/BertForSequenceClassification", ["bert.encoder.layer.0.attention.self.query"]),
        (
            "transformers/GPT2LMHeadModel",
            ["transformer.wte", "transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_fc"],
        ),
        ("transformers/OPTForCausalLM", ["model.decoder.layers.0.self_attn.k_proj"]),
        ("transformers/SwinForImageClassification", []),
        ("transformers/LlamaForCausalLM", ["model.embed_tokens", "model.layers.0.mlp.gate_proj"]),
        ("transformers/Gemma2ForCausalLM", ["model.embed_tokens", "model.layers.0.mlp.gate_proj"]),
    ],
)
def test_channels_leave(key: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = load(key, monkeypatch)
    groups = find_removable(model, inputs).groups
    assert groups
    assert {group.name for group in groups} >= set(names)
    remove_at_random(model, groups, 0.5)
    small = compact(model, inputs)
    assert differ(model, small, inputs) <= ROUNDING
    before, after = (sum(weight.numel() for weight in masks.prunable(one).values()) for one in (model, small))
    assert after < 0.9 * before
