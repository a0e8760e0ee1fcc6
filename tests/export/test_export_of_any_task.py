"""Exports of models that are no classifiers of tensors in memory: inputs and outputs of any structure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tasks_of_users import Regressor, loaders, mean_squared, rmse, rows, trained_regressor
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toys import fault, seeded

from tune_prune.export import exporter, formats
from tune_prune.export.comparison import find_varying_axes
from tune_prune.export.report import ExportReport
from tune_prune.pruning import checkpoint, masks
from tune_prune.tasks import in_memory
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.settings import TaskSettings

pytestmark = [
    # PyTorch's exporters warn about their own internals
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
REGRESSION = {"loss": mean_squared, "metric": rmse}
PROGRAMS = ("safetensors", "sparse", "pt2", "onnx")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def export(model: nn.Module, data: object, to: str, **functions: Any) -> ExportReport:
    """Exports a model of which half of the weights of each layer are removed, by magnitude."""
    name = in_memory.keep_model(model)
    found = masks.dense_masks(model)
    for label, weight in masks.prunable(model).items():
        found[label] = masks.shrink(found[label], weight.detach().abs(), 0.5)
    masks.apply(model, found)
    checkpoint.write(Path("a.safetensors"), name, model, found)
    settings = TaskSettings(**{key: in_memory.keep_function(value) for key, value in functions.items()})
    loaded = load_data(in_memory.keep_data(data), settings=settings, model=name)
    return exporter.export(Path("a.safetensors"), to, loaded, None, lambda line: None)


class Batches:
    """An iterable of batches."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


@torch.no_grad()
def measure(model: nn.Module) -> float:
    """Its RMSE on the test rows."""
    return rmse(model, [rows()[2]])


def agrees(report: ExportReport) -> None:
    """The file was written, and is the model."""
    assert Path(report.file).stat().st_size == report.bytes_file
    assert report.kept == pytest.approx(report.total / 2, abs=report.total / 50 + 2)
    assert report.max_difference == 0 or (not formats.formats[report.format].exact and report.max_difference < 1e-4)


@pytest.mark.parametrize(
    ("to", "data"), [*((to, rows) for to in formats.formats), ("dense", loaders), ("pt2", loaders)]
)
def test_a_regression(to: str, data: Any) -> None:
    model = trained_regressor()
    report = export(model, data(), to, **REGRESSION)
    agrees(report)
    assert report.metric.name == "rmse"
    assert report.test_metric == pytest.approx(measure(model), rel=1e-5)
    assert (report.images, report.agree) == (64, None)
    printed = report.to_dict()
    assert printed["test_rmse"] == report.test_metric
    assert not {"agree", "metric", "test_metric"} & set(printed)
    assert json.dumps(printed)
    value = report.metric.format(report.test_metric)
    assert report.describe()[3].startswith(f"test rmse {value}; loaded again, outputs for 64 test samples ")
    assert [one.batch for one in report.latencies] == ([] if formats.formats[to].exact else [1])


def test_by_command(command, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained_regressor()
    checkpoint.write(Path("a.safetensors"), "tasks_of_users:trained_regressor", model, masks.dense_masks(model))
    flags = ("--model", "tasks_of_users:trained_regressor", "--data", "tasks_of_users:rows")
    own = ("--loss", "tasks_of_users:mean_squared", "--metric", "tasks_of_users:rmse")
    assert command("export", "a.safetensors", "--to", "sparse", *flags, *own, "--json") == 0
    assert json.loads(capsys.readouterr().out)["test_rmse"] == pytest.approx(measure(model))


class Recurrent(nn.Module):
    """[n, steps, 3] -> [n, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, series: Tensor) -> Tensor:
        return self.head(self.lstm(series)[0][:, -1])


@pytest.mark.parametrize("to", PROGRAMS)
def test_an_lstm(to: str) -> None:
    series = torch.randn(60, 5, 3, generator=seeded(0))
    split = (series, (series.sum((1, 2)) > 0).long())
    loader = DataLoader(TensorDataset(*split), 25)
    report = export(Recurrent(), (loader, loader, loader), to)
    agrees(report)
    assert report.agree == report.images == 60
    assert "60 of 60 test samples get the same class" in report.describe()[3]


class Pixels(nn.Module):
    """A U-Net of one level: [n, 1, 8, 8] -> class scores [n, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.head = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.down(images).relu()
        second = self.bottom(F.max_pool2d(first, 2)).relu()
        return self.head(torch.cat([self.up(second), first], 1))


@pytest.mark.parametrize("to", PROGRAMS)
def test_a_unet(to: str) -> None:
    images = torch.randn(30, 1, 8, 8, generator=seeded(0))
    split = (images, (images[:, 0] > 0).long())
    report = export(Pixels(), (split, split, split), to)
    agrees(report)
    assert report.agree == 30  # all pixels of each have the same class


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    size = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(size)


def sentences(count: int, length: int) -> dict[str, Tensor]:
    ids = torch.randint(20, (count, length), generator=seeded(length))
    return {"attention_mask": torch.ones_like(ids), "input_ids": ids, "labels": ids[:, 0] % 2}


@pytest.mark.parametrize("to", PROGRAMS)
def test_bert_is_called_by_keywords(to: str) -> None:
    split = sentences(20, 6)
    report = export(bert(), (split, split, split), to)
    agrees(report)
    assert report.agree == 20


@pytest.mark.parametrize("to", ["pt2", "onnx"])
def test_batches_of_other_lengths(to: str) -> None:
    batches = Batches(sentences(4, 6), sentences(4, 9), sentences(3, 5))
    report = export(bert(), (batches, batches, batches), to)
    agrees(report)
    assert report.images == 11


class Both(nn.Module):
    """Two inputs, of which one counts, and a mapping of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(10, 3), nn.Linear(6, 1)

    def forward(self, numbers: Tensor, word: Tensor) -> dict[str, Tensor]:
        both = torch.cat([numbers, self.words(word)], 1)
        return {"value": self.head(both), "rank": both.argmax(1)}


def value_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(*batch[0])["value"], batch[1])


def named_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch["a"], word=batch["b"])["value"], batch["wanted"])


def one(model: nn.Module, batches: Iterable[Any]) -> float:
    return sum(1.0 for _ in batches)


@pytest.mark.parametrize(("to", "named"), [("sparse", False), ("pt2", False), ("pt2", True), ("onnx", True)])
def test_several_inputs_and_outputs(to: str, named: bool) -> None:
    numbers, word = torch.randn(20, 3, generator=seeded(1)), torch.randint(10, (20,), generator=seeded(2))
    split: Any = {"a": numbers, "b": word, "wanted": numbers[:, :1]} if named else ((numbers, word), numbers[:, :1])
    report = export(Both(), (split, split, split), to, loss=named_loss if named else value_loss, metric=one)
    agrees(report)
    assert report.test_metric == 1


class Detector(nn.Module):
    """Takes a list of images; returns losses in training mode, else as many boxes of an image as it has bright rows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, images: Sequence[Tensor], targets: Any = None) -> Any:
        boxes = [self.head(image[0][image[0].sum(1) > 0]) for image in images]
        if self.training:
            return {"size": torch.stack([one.sum() for one in boxes]).square().mean()}
        return [{"boxes": one, "labels": one.argmax(1)} for one in boxes]


def detection_loss(model: nn.Module, batch: Any) -> Tensor:
    training = model.training
    try:
        return sum(model.train()(*batch).values())
    finally:
        model.train(training)


def count_boxes(model: nn.Module, batches: Iterable[Any]) -> float:
    return float(sum(len(found["boxes"]) for images, _ in batches for found in model(images)))


def detection() -> Any:
    images = [torch.randn(1, size, 4, generator=seeded(size)) for size in (5, 7, 6, 8, 4)]
    batches = Batches((images[:2], [{}, {}]), (images[2:], [{}, {}, {}]))
    return batches, batches, batches


@pytest.mark.parametrize("to", ["safetensors", "sparse", "dense"])
def test_a_detector_is_written_as_weights(to: str) -> None:
    report = export(Detector(), detection(), to, loss=detection_loss, metric=count_boxes)
    agrees(report)
    images = [image for batch in detection()[2] for image in batch[0]]
    assert report.test_metric == sum(int((image[0].sum(1) > 0).sum()) for image in images)


@pytest.mark.parametrize("to", ["pt2", "onnx"])
def test_what_a_format_cannot_take_is_one_line(to: str) -> None:
    said = fault(lambda: export(Detector(), detection(), to, loss=detection_loss, metric=count_boxes))
    assert said.startswith(f"--to {to}: ")
    assert said.endswith("; --to sparse takes any model")
    assert "\n" not in said
    assert [path.name for path in Path().iterdir()] == ["a.safetensors"]


class Branching(Regressor):
    """What it computes depends on its inputs."""

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.net(rows)
        return hidden if hidden.sum() > 0 else -hidden


@pytest.mark.parametrize("to", ["pt2", "onnx"])
def test_control_flow_that_depends_on_data(to: str) -> None:
    said = fault(lambda: export(Branching(), rows(), to, **REGRESSION))
    assert "Could not guard on data-dependent expression" in said
    assert said.endswith("; --to sparse takes any model")
    agrees(export(Branching(), rows(), "sparse", **REGRESSION))


class Noisy(Regressor):
    """Draws at random in evaluation mode as well."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.net(rows) + torch.randn(len(rows), 1)


def test_a_model_that_draws_at_random() -> None:
    agrees(export(Noisy(), rows(), "sparse", **REGRESSION))


def test_precision_is_that_of_files() -> None:
    settings = {"loss": in_memory.keep_function(mean_squared), "metric": in_memory.keep_function(rmse)}
    model = trained_regressor()
    checkpoint.write(Path("a.safetensors"), "tasks_of_users:trained_regressor", model, masks.dense_masks(model))
    data = load_data("tasks_of_users:rows", settings=TaskSettings(**settings, precision="bf16"))
    report = exporter.export(Path("a.safetensors"), "sparse", data, None, lambda line: None)
    assert report.test_metric == pytest.approx(measure(model), rel=1e-5)


def test_axes_that_vary() -> None:
    assert find_varying_axes([(torch.zeros(2, 3, 4), torch.zeros(2)), (torch.zeros(1, 3, 5), torch.zeros(1))]) == [
        {2},
        set(),
    ]
