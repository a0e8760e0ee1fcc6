"""The checks of experiments/architectures, on the smallest models of each library, and on a layer that breaks them."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from tune_prune.pruning import masks
from tune_prune.tasks.models import build
from tune_prune.training.resources import limit_threads

FOLDER = Path(__file__).parent.parent / "experiments" / "architectures"

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The modules `catalogue` and `run` of the folder."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("catalogue", "check", "run", "table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import catalogue
    import run

    return catalogue, run


@pytest.mark.parametrize(
    ("key", "left_out"),
    [
        ("torchvision/shufflenet_v2_x0_5", ""),
        ("timm/lcnet_035", ""),
        ("transformers/GPT2LMHeadModel", ""),
        ("transformers/LlamaForCausalLM, bfloat16", ""),
        ("transformers/Wav2Vec2ForCTC", "conv.parametrizations.weight (ParametrizationList, 16)"),
        ("transformers/MixtralForCausalLM", "mlp.experts (MixtralExperts, 18,432)"),
    ],
)
def test_all_checks_hold(modules: tuple[ModuleType, ModuleType], key: str, left_out: str) -> None:
    pytest.importorskip(key.partition("/")[0])
    torch.manual_seed(0)
    with limit_threads(1):
        row = modules[1].check_case(key)
    assert row["compression"] == pytest.approx(0.5, abs=1e-3)
    assert row["sparse_bytes"] < row["checkpoint_bytes"]
    assert left_out in row["left_out"]
    assert bool(left_out) == (row["counted"] < row["total"])


@pytest.mark.usefixtures("modules")
def test_checks_can_fail(tmp_path: Path) -> None:
    import check

    model = build("toys:mlp")
    found = check.prune(model)
    with torch.no_grad():
        model[1].weight[found["2"] == 0] = 1e-9
    with pytest.raises(check.CheckError, match="512 removed weights of layer 2 are not zero"):
        check.check_zeros(model, found, "now")
    with torch.no_grad():
        model[1].weight[found["2"] == 0] = -0.0
    with pytest.raises(check.CheckError, match="0 removed weights"):
        check.check_zeros(model, found, "now")
    masks.apply(model, found)
    with pytest.raises(check.CheckError, match="no weight has changed"):
        check.retrain(model, lambda model: (model[3].bias * 0).sum(), found)
    masks.apply(model, found)
    model[1].weight.data = model[1].weight.data.double()
    with pytest.raises(check.CheckError, match=r"checkpoint: 1\.weight is not what was written"):
        check.check_files("toys:mlp", model, found, tmp_path)
    with pytest.raises(check.CheckError, match="no layer"):
        check.count_weights(nn.ReLU())


class Centred(nn.Conv2d):
    """A convolution that subtracts the mean from its weight in every call."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self._conv_forward(inputs, self.weight - self.weight.mean(), self.bias)


@pytest.mark.usefixtures("modules")
def test_layers_that_do_not_compute_with_zeros_are_named() -> None:
    import check

    model = nn.Sequential(nn.Conv2d(1, 2, 3), Centred(2, 3, 3), nn.Flatten(), nn.Linear(48, 2))
    found = check.prune(model)
    with check.watch(model, found) as changing:
        model(torch.rand(2, 1, 8, 8))
    assert changing == {"Centred"}
    assert not any(module._forward_hooks for module in model)


@pytest.mark.usefixtures("modules")
def test_the_documented_tables_are_those_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import table

    readme = tmp_path / "README.md"
    readme.write_text((FOLDER / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(table, "README", readme)
    table.main()
    assert readme.read_text(encoding="utf-8") == (FOLDER / "README.md").read_text(encoding="utf-8")
