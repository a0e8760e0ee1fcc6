import pytest
import torch
from toys import COMPUTED, computed, fault

from tune_prune.tasks import in_memory
from tune_prune.tasks.models import build


@pytest.mark.parametrize("kind", [kind for kind in COMPUTED if kind.startswith("old") or kind == "pruned"])
def test_a_module_with_a_weight_that_a_hook_computes_is_copied(kind: str) -> None:
    kept = computed(kind)
    inputs = torch.rand(2, 1, 8, 8)
    kept(inputs).sum().backward()
    model = build(in_memory.keep_model(kept))
    assert torch.equal(model.eval()(inputs), kept.eval()(inputs))


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_a_module_that_cannot_be_sent_is_handed_over_as_a_function(kind: str) -> None:
    said = fault(lambda: in_memory.keep_model(computed(kind)))
    assert said.endswith("hand over a function that makes the model, or name one by its address")
    assert build(in_memory.keep_model(lambda: computed(kind))) is not None
