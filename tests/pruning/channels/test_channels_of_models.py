"""Half of the channels of every group leave models of other libraries, which then compute what the masked ones do."""

import sys
from pathlib import Path

import pytest
import torch
from random_networks import remove_at_random

from tune_prune.export.compaction import ROUNDING, compact, find_removable
from tune_prune.export.comparison import Difference
from tune_prune.pruning import masks
from tune_prune.pruning.channels.tracer import as_batch
from tune_prune.tasks.batches import call_model, iterate_tensors, record_calls

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("torchvision/shufflenet_v2_x0_5", ["stage2.1.branch2.0"]),
        ("timm/lcnet_035", ["conv_stem"]),
        ("transformers/BertForSequenceClassification", ["bert.encoder.layer.0.attention.self.query"]),
        ("transformers/GPT2LMHeadModel", ["transformer.wte", "transformer.h.0.mlp.c_fc"]),
        ("transformers/SwinForImageClassification", []),
        ("transformers/LlamaForCausalLM", ["model.layers.0.mlp.gate_proj"]),
    ],
)
def test_channels_leave(key: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(key.partition("/")[0])
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "experiments" / "architectures")
    monkeypatch.delitem(sys.modules, "catalogue", raising=False)
    import catalogue

    torch.manual_seed(0)
    case = catalogue.cases()[key]
    model = case.make()
    with record_calls(model.train()) as calls:
        case.loss(model)
    inputs = as_batch(model.eval(), calls[-1])
    groups = find_removable(model, inputs).groups
    assert groups
    assert {group.name for group in groups} >= set(names)
    remove_at_random(model, groups, 0.5)
    small, difference = compact(model, inputs), Difference()
    with torch.no_grad():
        difference.add(*(list(iterate_tensors(call_model(one, inputs))) for one in (model, small)))
    assert difference.share <= ROUNDING
    before, after = (sum(weight.numel() for weight in masks.prunable(one).values()) for one in (model, small))
    assert after < 0.9 * before
    monkeypatch.delitem(sys.modules, "catalogue")
