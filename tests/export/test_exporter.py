import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from toys import fault, images, mlp, seeded

import tune_prune
from tune_prune.export import exporter, formats
from tune_prune.export.latency.readings import Readings
from tune_prune.export.report import LatencyResult
from tune_prune.pruning import checkpoint, masks
from tune_prune.tasks.metrics import evaluate
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

pytestmark = [
    # PyTorch's exporters warn about their own internals
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TOY = ("--model", "toys:mlp", "--data", "toys:images")


def made(path: Path, name: str = "toys:mlp", model: nn.Module | None = None) -> nn.Module:
    """Writes a checkpoint of a trained toy without 12 of its 16 neurons."""
    torch.manual_seed(0)
    model = model or mlp()
    fit(model, images().train, Recipe(40, 0.1, batch_size=32), seeded(0))
    found = masks.dense_masks(model)
    if name == "toys:mlp":
        found["2"][:12] = 0
    masks.apply(model, found)
    checkpoint.write(path, name, model, found)
    return model.eval()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("to", formats.formats)
def test_the_report_as_json(command, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = made(Path("a.safetensors"))
    assert command("export", "a.safetensors", "--to", to, *TOY, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    ending = formats.formats[to].ending
    assert report["file"] == f"a{ending}"
    assert Path(report["file"]).stat().st_size == report["bytes_file"]
    assert sorted(path.name for path in Path().iterdir()) == sorted(["a.safetensors", f"a{ending}"])
    assert (report["total"], report["kept"]) == (1088, 1088 - 768)
    assert report["bytes_dense"] == 4 * (1088 + 16 + 4)
    assert (report["macs_dense"], report["macs_kept"]) == (1088, 1088 - 768)
    compacted = 4 * 64 + 4 * 4
    assert report["macs_file"] == (compacted if formats.formats[to].compaction else 1088)
    assert (report["images"], report["agree"]) == (120, 120)
    assert report["test_error"] == pytest.approx(evaluate(model, images().load_test()).metric)
    assert [t["batch"] for t in report["latencies"]] == ([] if formats.formats[to].exact else [1])  # of 120 images


@pytest.mark.parametrize("to", ["dense", "pt2", "onnx"])
def test_latency_is_compared_with_the_unpruned_network_in_the_same_runtime(
    to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, loaded, compared = formats.formats[to], [], []

    def load(path: Path) -> formats.Scores:
        loaded.append(chosen.load(path))
        return loaded[-1]

    def read(dense: formats.Scores, pruned: formats.Scores, inputs: torch.Tensor) -> Readings:
        compared.append((dense, pruned, len(inputs)))
        return Readings([(0.004, 0.001), (0.006, 0.003), (0.008, 0.004)])

    monkeypatch.setitem(formats.formats._entries, to, replace(chosen, load=load))
    monkeypatch.setattr(exporter, "compare_latency", read)
    made(Path("a.safetensors"))
    report = exporter.export(Path("a.safetensors"), to, images(), None, print)
    assert compared == [(loaded[1], loaded[0], 1)]  # both are files of this format, which its own reader has loaded
    inputs = images().load_test().inputs[:5] / 256
    assert torch.allclose(loaded[0](inputs), loaded[1](inputs), atol=1e-5)
    if to == "dense":
        shapes = [[tuple(p.shape) for p in model.parameters()] for model in loaded]
        assert shapes == [[(4, 64), (4,), (4, 4), (4,)], [(16, 64), (16,), (4, 16), (4,)]]
    runtime = {"dense": "PyTorch", "pt2": "torch.export", "onnx": "ONNX Runtime"}[to]
    assert report.runtime == runtime
    assert report.latencies == [LatencyResult(1, 0.006, 0.003, 2.0, 2.0, 4.0)]
    assert report.describe()[-1] == (
        f"1 at a time on one core in {runtime}: unpruned 6 ms, pruned 3 ms, 2.00x as fast (quartiles 2.00 to 4.00)"
    )


def test_the_report_in_words(command, capsys: pytest.CaptureFixture[str]) -> None:
    made(Path("a.safetensors"))
    assert command("export", "a.safetensors", "--to", "dense", *TOY, "--out", "b.safetensors") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "320 of 1,088 weights (3.4x fewer)"
    assert "120 of 120 test samples get the same class" in lines[3]
    assert lines[-1] == "file: b.safetensors"
    assert [p.shape for p in tune_prune.load("b.safetensors").parameters()] == [(4, 64), (4,), (4, 4), (4,)]
    Path("folder").mkdir()
    assert command("export", "a.safetensors", "--to", "sparse", *TOY, "--out", "folder") == 0
    assert Path("folder/a-sparse.safetensors").is_file()


def test_names_with_dots(command) -> None:
    for name in ("m.lr0.1", "m.lr0.2"):
        made(Path(name))
        assert command("export", name, "--to", "sparse", *TOY) == 0
    assert sorted(path.name for path in Path().iterdir()) == [
        *("m.lr0.1", "m.lr0.1-sparse.safetensors", "m.lr0.2", "m.lr0.2-sparse.safetensors"),
    ]


class Deciding(nn.Module):
    """Its operations depend on its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 16), nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs.flatten(1))
        return self.head(hidden.relu() if hidden.sum() > 0 else hidden.tanh())


def test_a_model_that_branches_on_data(command, capsys: pytest.CaptureFixture[str]) -> None:
    name = "test_exporter:Deciding"
    made(Path("a.safetensors"), name, Deciding())
    flags = ("--model", name, "--data", "toys:images")
    for to, code in (("safetensors", 0), ("sparse", 0), ("dense", 2), ("pt2", 2)):
        assert command("export", "a.safetensors", "--to", to, *flags) == code
        printed = capsys.readouterr()
        if code:
            assert printed.err.count("\n") == 1
        if to == "dense":
            assert "the model branches on data, in its forward method" in printed.err
        if to == "pt2":
            assert "not compacted: the model branches on data, in its forward method" in printed.out
    assert sorted(path.name for path in Path().iterdir()) == [
        *("a-sparse.safetensors", "a-weights.safetensors", "a.safetensors"),
    ]


def test_what_cannot_be_exported(command, capsys: pytest.CaptureFixture[str]) -> None:
    made(Path("a.safetensors"))
    cases = [
        (
            ("a.safetensors", "--to", "tflite", *TOY),
            "unknown format 'tflite'; known: safetensors, sparse, dense, pt2, o",
        ),
        (("b.safetensors", "--to", "onnx", *TOY), "b.safetensors: no such checkpoint"),
        (("a.safetensors", "--to", "onnx"), "its model is code, 'toys:mlp'; if you trust it, add --model"),
        (
            ("a.safetensors", "--to", "sparse", "--model", "toys:mlp"),
            "does not say what data its model is for",
        ),
        (("a.safetensors", "--to", "sparse", *TOY, "--out", "a.safetensors"), "that is the checkpoint itself"),
    ]
    for flags, said in cases:
        assert command("export", *flags) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["a.safetensors"]


def test_a_file_that_computes_something_else_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    made(Path("a.safetensors"))

    def spoiled(export_input: formats.ExportInput) -> bytes:
        with torch.no_grad():
            next(export_input.model.parameters())[13, 0] += 1
        return formats._write_plain(export_input)

    bad = formats.Format("-bad.safetensors", True, spoiled, formats._load_plain)
    monkeypatch.setitem(formats.formats._entries, "bad", bad)
    with pytest.raises(
        RuntimeError, match=r"its outputs differ from the model's by .* of the largest and .*; nothing was written"
    ):
        exporter.export(Path("a.safetensors"), "bad", images(), None, print)
    assert [path.name for path in Path().iterdir()] == ["a.safetensors"]


def test_the_format_is_looked_up_first() -> None:
    assert fault(lambda: exporter.export(Path("nowhere"), "zip", images(), None, print)).startswith("unknown")
