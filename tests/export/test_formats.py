"""A contract that every format keeps, and details of some formats."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn
from toys import Conv, Tied, TiedInside, Twice, fault, mlp, seeded

import tune_prune
from tune_prune.export import exporter, formats
from tune_prune.export.compaction import compact
from tune_prune.export.formats import ExportInput
from tune_prune.pruning import checkpoint, masks
from tune_prune.tasks.models import build
from tune_prune.tasks.splits import Data, Split

TOYS = {"toys:mlp": mlp, "toys:Conv": Conv, "toys:Tied": Tied}
TIED = {"toys:Tied": Tied, "toys:TiedInside": TiedInside, "toys:Twice": Twice}
pytestmark = [
    # PyTorch's exporters warn about their own internals
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def pruned(address: str, ratio: float) -> ExportInput:
    """A toy of which this ratio of weights is removed, by magnitude."""
    torch.manual_seed(1)
    model = (TOYS | TIED)[address]().eval()
    found = masks.dense_masks(model)
    for label, weight in masks.prunable(model).items():
        scores = weight.detach().abs()
        scores[: len(scores) // 4] -= 1  # a quarter of the channels go whole
        found[label] = masks.shrink(found[label], scores, ratio)
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


@pytest.mark.parametrize("address", TIED)
@pytest.mark.parametrize("name", ["dense", "pt2"])
def test_tied_weights_are_written_once_and_stay_tied(name: str, address: str, tmp_path: Path) -> None:
    export_input, one = pruned(address, 0.5), formats.formats[name]
    path = tmp_path / f"a{one.ending}"
    path.write_bytes(one.write(export_input))
    with torch.no_grad():
        torch.testing.assert_close(one.load(path)(images(9)), export_input.model(images(9)), rtol=1e-5, atol=1e-5)
    if name == "dense":
        loaded = tune_prune.load(path)
        assert isinstance(loaded, TIED[address])
        first, again = ("inner", "again") if address == "toys:TiedInside" else ("first", "again")
        assert getattr(loaded, first).weight is getattr(loaded, again).weight
        assert len(load_file(path)) == len(list(loaded.parameters()))
    else:
        program = torch.export.load(path)
        assert len({value.data_ptr() for value in program.state_dict.values()}) == len(
            list(export_input.model.parameters())
        )


def test_layers_of_one_weight_count_once(tmp_path: Path) -> None:
    tied = pruned("toys:TiedInside", 0.5)
    checkpoint.write(tmp_path / "a.safetensors", tied.name, tied.model, tied.masks)
    for name in ("safetensors", "sparse", "dense", "pt2"):
        split = Split(images(9), torch.arange(9) % 4)
        data = Data(split, split, lambda split=split: split)
        report = exporter.export(tmp_path / "a.safetensors", name, data, tmp_path, lambda line: None)
        assert report.bytes_dense == 4 * sum(value.numel() for value in tied.model.parameters())


def test_a_model_that_asks_for_the_version_of_its_weights(tmp_path: Path) -> None:
    name = "torchvision:mnasnet0_5(num_classes=10)"
    model = build(name).eval()
    export_input = ExportInput(name, model, masks.dense_masks(model), images(2), model)
    for form in ("safetensors", "sparse"):
        (tmp_path / "a").write_bytes(formats.formats[form].write(export_input))
        inputs = torch.rand(2, 3, 32, 32, generator=seeded(3))
        assert torch.equal(formats.formats[form].load(tmp_path / "a")(inputs), model(inputs))


def test_a_network_that_is_larger_than_its_file_is_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> nn.Module:
        raise AssertionError(f"{name} was built")

    for module in (checkpoint, formats):
        monkeypatch.setattr(module, "build", refuse)
    path = tmp_path / "a.safetensors"
    for model in (
        "torchvision:resnet18(num_classes=4000000)",
        "torchvision.models:regnet_y_128gf(num_classes=9999999)",
    ):
        for more in ({}, {"compact": True}, {"shapes": {}}):
            path.write_bytes(save({"x": torch.zeros(1)}, {"tune_prune": json.dumps({"model": model, **more})}))
            said = fault(lambda: tune_prune.load(path))
            assert said.startswith(f"{path}: ")
            assert "does not fit the model" in said or "is missing" in said


def test_a_tensor_of_other_axes(tmp_path: Path) -> None:
    tensors = {key: value.flatten() for key, value in mlp().state_dict().items()}
    header = json.dumps({"model": "toys:mlp", "compact": True})
    (tmp_path / "a").write_bytes(save(tensors, {"tune_prune": header}))
    assert "1.weight has 1 axes" in fault(lambda: tune_prune.load(tmp_path / "a"))


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
    assert said.startswith(f"--to {name}: test_formats:Odd cannot be exported by PyTorch with batches of any size (")
    assert "\n" not in said
