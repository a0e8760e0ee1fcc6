"""A contract that every format keeps, and details of some formats."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toys import Conv, Tied, fault, mlp, seeded

import tune_prune
from tune_prune.export import formats
from tune_prune.export.compaction import compact
from tune_prune.export.formats import ExportInput
from tune_prune.pruning import checkpoint, masks

TOYS = {"toys:mlp": mlp, "toys:Conv": Conv, "toys:Tied": Tied}
pytestmark = [
    # PyTorch's exporters warn about their own internals
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def pruned(address: str, ratio: float) -> ExportInput:
    """A toy of which this ratio of weights is removed, by magnitude."""
    torch.manual_seed(1)
    model = TOYS[address]().eval()
    found = masks.dense_masks(model)
    for label, weight in masks.prunable(model).items():
        found[label] = masks.shrink(found[label], weight.detach().abs(), ratio)
    masks.apply(model, found)
    samples = images(2)
    return ExportInput(address, model, found, samples, compact(model, samples))


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=seeded(2))


@pytest.mark.parametrize("name", formats.formats)
@pytest.mark.parametrize("address", TOYS)
@pytest.mark.parametrize("ratio", [0.0, 0.9])
def test_what_is_loaded_computes_what_was_written(name: str, address: str, ratio: float, tmp_path: Path) -> None:
    export_input, one = pruned(address, ratio), formats.formats[name]
    path = tmp_path / f"a{one.ending}"
    path.write_bytes(one.write(export_input))
    loaded = one.load(path)
    for count in (1, 3, 70):  # batches of any size
        inputs = images(count)
        with torch.no_grad():
            ours, theirs = export_input.model(inputs), loaded(inputs)
        if one.exact:
            assert torch.equal(ours, theirs)
        else:
            torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_plain_weights_need_nothing_of_this_package(tmp_path: Path) -> None:
    export_input = pruned("toys:Conv", 0.8)
    (tmp_path / "a").write_bytes(formats.formats["safetensors"].write(export_input))
    model = Conv().eval()
    model.load_state_dict(load_file(tmp_path / "a"))
    assert torch.equal(model(images(5)), export_input.model(images(5)))


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_an_ordinary_module_comes_back(name: str, tmp_path: Path) -> None:
    export_input = pruned("toys:Conv", 0.9)
    (tmp_path / "a").write_bytes(formats.formats[name].write(export_input))
    loaded = tune_prune.load(tmp_path / "a")
    assert type(loaded) is Conv
    assert not loaded.training
    expected = export_input.model if name == "sparse" else export_input.compacted
    assert [tuple(p.shape) for p in loaded.parameters()] == [tuple(p.shape) for p in expected.parameters()]


def test_a_checkpoint_is_loaded_too(tmp_path: Path) -> None:
    export_input = pruned("toys:mlp", 0.9)
    checkpoint.write(tmp_path / "a", export_input.name, export_input.model, export_input.masks)
    assert torch.equal(tune_prune.load(str(tmp_path / "a"))(images(3)), export_input.model(images(3)))


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert fault(lambda: tune_prune.load(path)).startswith(f"{path}: no such file")
    path.write_bytes(b"noise")
    assert fault(lambda: tune_prune.load(path)).startswith(f"{path}: not a readable safetensors")
    path.write_bytes(formats.formats["safetensors"].write(pruned("toys:mlp", 0.5)))
    assert "names no model" in fault(lambda: tune_prune.load(path))
    dense = formats.formats["dense"].write(pruned("toys:mlp", 0.5))
    path.write_bytes(dense.replace(b"toys:mlp", b"toys:Tied"[:12]))
    assert fault(lambda: tune_prune.load(path))


def test_onnx_names_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else object())
    said = fault(lambda: formats.formats["onnx"].write(pruned("toys:mlp", 0.5)))
    assert said == "--to onnx needs onnxscript: pip install 'tune-prune[onnx]'"


class Odd(nn.Module):
    """Takes only batches of two."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs.reshape(2, 64))


@pytest.mark.parametrize("name", ["pt2", "onnx"])
def test_a_model_that_pytorch_cannot_export(name: str) -> None:
    model = Odd().eval()
    export_input = ExportInput("test_formats:Odd", model, masks.dense_masks(model), images(2), model)
    said = fault(lambda: formats.formats[name].write(export_input))
    assert said.startswith("test_formats:Odd cannot be exported by PyTorch with batches of any size (")
    assert "\n" not in said
