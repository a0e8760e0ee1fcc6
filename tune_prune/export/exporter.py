"""Exports a pruned model: writes it in a format, loads the file as other programs do, and compares the two.

A file whose loaded model is not the model that was written is never put in its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.export import costs
from tune_prune.export.compaction import ROUNDING, compact
from tune_prune.export.formats import ExportInput, Format, Scores, formats
from tune_prune.export.resizing import own_state
from tune_prune.pruning import checkpoint, masks
from tune_prune.tasks.splits import Data, Split
from tune_prune.tasks.task import check_compatible
from tune_prune.training.resources import one_thread

BATCHES = (1, 256)
"""Sizes of the batches whose latency is measured."""

BATCH = 500
"""Samples at a time when test images are scored."""


@dataclass(frozen=True)
class LatencyResult:
    """What a batch takes on one core in the format's own runtime: the unpruned network, and the file's.

    `dense` and `pruned` are median seconds, `speedup` is the median of dense divided by pruned, and `speedup_low` and
    `speedup_high` are its quartiles, all of the same pairs of readings, which were taken in turn.
    """

    batch: int
    dense: float
    pruned: float
    speedup: float
    speedup_low: float
    speedup_high: float


@dataclass(frozen=True)
class ExportReport:
    """The size, costs and test error of an exported file, measured on the file as loaded again.

    `total` and `kept` weights are those of weighted layers, without biases, by the masks. `bytes_dense` counts all
    tensors in memory, `bytes_file` the file. Multiply-adds (`macs_...`) are for one sample: of the dense model, of the
    kept weights, and of the file's network. `test_error` is in percent, of `images` test images; `agree` counts the
    images for which model and file predict the same class; `max_difference` is the largest difference of two scores as
    a share of the largest score. `latencies` compares the file's network with the same network unpruned, written in the
    same format and loaded alike by `runtime`; it is empty where the file's network is that one.
    """

    format: str
    file: str
    total: int
    kept: int
    compression: float
    factor: float
    bytes_dense: int
    bytes_file: int
    macs_dense: float
    macs_kept: float
    macs_file: float
    test_error: float
    images: int
    agree: int
    max_difference: float
    runtime: str
    latencies: Sequence[LatencyResult]

    def to_dict(self) -> dict[str, object]:
        """The report as `--json` prints it."""
        return asdict(self)

    def describe(self) -> list[str]:
        """The report in words, line by line."""
        difference = f"differ by at most {self.max_difference:.1e} of the largest"
        scores = "are the same bit for bit" if self.max_difference == 0 else difference
        return [
            f"{self.kept:,} of {self.total:,} weights ({self.factor:.1f}x fewer)",
            f"{self.bytes_file:,} bytes in the file, {self.bytes_dense:,} in memory "
            f"({self.bytes_dense / self.bytes_file:.1f}x)",
            f"{self.macs_file:,.0f} of {self.macs_dense:,.0f} multiply-adds; kept weights take {self.macs_kept:,.0f}",
            f"test error {self.test_error:.2f} %; loaded again, {self.agree:,} of {self.images:,} test images get the "
            f"same class, and scores {scores}",
            *(
                f"{t.batch} at a time on one core in {self.runtime}: unpruned {1000 * t.dense:.3g} ms, pruned "
                f"{1000 * t.pruned:.3g} ms, {t.speedup:.2f}x as fast (quartiles {t.speedup_low:.2f} to "
                f"{t.speedup_high:.2f})"
                for t in self.latencies
            ),
        ]


def export(path: Path, to: str, data: Data, out: Path | None, say: Callable[[str], None]) -> ExportReport:
    """Writes a checkpoint's model in the format `to`; `out` is a file or a folder, None the working directory.

    Model and file are compared on the test images of `data`. Raises `UserError` where the checkpoint, the data or the
    format do not fit the model, and `RuntimeError`, with nothing written, where the loaded file is not the model.
    """
    chosen = formats[to]
    saved = checkpoint.read(path)
    model, mask = checkpoint.restore(saved, str(path))
    target = _target(path, out, chosen)
    check_compatible(saved.model, model, data, torch.device("cpu"), check_test=True)
    test = data.load_test()
    if not isinstance(test, Split):
        raise UserError("only classifications whose data is tensors can be compared after an export")
    inputs = test.as_float(test.inputs)
    # latency is measured on one core, and an ONNX session takes as many threads as torch does
    with one_thread(), TemporaryDirectory() as folder:
        before = _scores(model.eval(), inputs, saved.model)
        # a copy: an exported program keeps the samples, and a view of them would keep all images
        export_input = _make_input(saved.model, model, mask, inputs[:2].clone(), chosen, say)
        written = chosen.write(export_input)
        loaded = _load(chosen, written, Path(folder, "pruned"))
        latencies = []
        if export_input.compacted is not export_input.model:  # else the file's network is the unpruned one
            # its removed weights are zeros here, which take the time of any other numbers
            unpruned = chosen.write(replace(export_input, compacted=export_input.model))
            latencies = _compare_latencies(_load(chosen, unpruned, Path(folder, "unpruned")), loaded, inputs)
        report = _make_report(
            chosen, to, str(target), export_input, len(written), loaded, inputs, test.labels, before, latencies
        )
        _check_report(chosen, loaded, export_input, report)
    files.write_bytes(target.absolute(), written)
    return report


def _load(chosen: Format, written: bytes, stem: Path) -> Scores:
    """Loads the bytes of a file as the programs do that read such files."""
    path = stem.with_name(stem.name + chosen.ending)
    path.write_bytes(written)
    return chosen.load(path)


def _compare_latencies(dense: Scores, pruned: Scores, inputs: Tensor) -> list[LatencyResult]:
    """Measures two networks in turn, for each size of a batch for which there are enough inputs."""
    found = []
    for size in BATCHES:
        if size <= len(inputs):
            readings = costs.compare_latency(dense, pruned, inputs[:size])
            low, middle, high = readings.speedups
            found.append(LatencyResult(size, *readings.medians, middle, low, high))
    return found


def _target(path: Path, out: Path | None, chosen: Format) -> Path:
    """The path of the file to write."""
    name = f"{path.name.removesuffix('.safetensors')}{chosen.ending}"
    target = Path(name) if out is None else out / name if out.is_dir() else out
    if target.resolve() == path.resolve():
        raise UserError(f"--out {out}: that is the checkpoint itself; name another file")
    return target


def _make_input(
    name: str, model: nn.Module, mask: dict[str, Tensor], samples: Tensor, chosen: Format, say: Callable[[str], None]
) -> ExportInput:
    """Compacts the model where the format stores compacted models, or may and it can be."""
    compacted = model
    if chosen.compaction:
        try:
            compacted = compact(model, samples)
        except UserError as error:
            if chosen.compaction == "must":
                raise
            say(f"not compacted: {error}")
    return ExportInput(name, model, mask, samples, compacted)


@torch.no_grad()
def _scores(model: Scores, inputs: Tensor, name: str) -> Tensor:
    """The model's class scores, [n, classes], batch by batch."""
    try:
        return torch.cat([model(part) for part in inputs.split(BATCH)])
    except Exception as error:  # a user's model may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"model {name!r} fails on inputs {list(inputs.shape)} ({reason}); name its --data") from error


def _make_report(
    chosen: Format,
    to: str,
    name: str,
    export_input: ExportInput,
    size: int,
    loaded: Scores,
    inputs: Tensor,
    labels: Tensor,
    before: Tensor,
    latencies: Sequence[LatencyResult],
) -> ExportReport:
    """Measures the loaded file; `before` are the model's scores of the inputs, `size` is the file's in bytes."""
    after = _scores(loaded, inputs, export_input.name)
    counts = masks.kept_counts(export_input.masks).values()
    sample = Split(export_input.samples, labels[: len(export_input.samples)])
    uses = costs.count_uses(export_input.model, sample)
    compacted_uses = costs.count_uses(export_input.compacted, sample)
    compressed = masks.compression(export_input.masks)
    return ExportReport(
        format=to,
        file=name,
        total=sum(total for _, total in counts),
        kept=sum(kept for kept, _ in counts),
        compression=compressed,
        factor=masks.factor(compressed),
        bytes_dense=sum(value.nbytes for value in own_state(export_input.model).values()),
        bytes_file=size,
        macs_dense=costs.multiply_adds(masks.dense_masks(export_input.model), uses),
        macs_kept=costs.multiply_adds(export_input.masks, uses),
        macs_file=costs.multiply_adds(masks.dense_masks(export_input.compacted), compacted_uses),
        test_error=100 * float((after.argmax(1) != labels).float().mean()),
        images=len(labels),
        agree=int((after.argmax(1) == before.argmax(1)).sum()),
        max_difference=float((after - before).abs().max() / before.abs().max().clamp_min(1e-12)),
        runtime=chosen.runtime,
        latencies=latencies,
    )


def _check_report(chosen: Format, loaded: Scores, export_input: ExportInput, report: ExportReport) -> None:
    """Raises a `RuntimeError` where the loaded file's scores, weights or zeros are not those of the model."""
    wrong = []
    if report.max_difference > (0.0 if chosen.exact else ROUNDING):
        wrong.append(f"its scores differ from the model's by {report.max_difference:.2g} of the largest")
    left = sum(int(weight.count_nonzero()) for weight in masks.effective(export_input.compacted).values())
    if left > report.kept:
        wrong.append(f"it has {left:,} weights that are not zero, and {report.kept:,} are kept")
    if isinstance(loaded, nn.Module) and chosen.exact:
        here, there = (masks.effective(model) for model in (export_input.model, loaded))
        if any(not torch.equal(weight, there[label]) for label, weight in here.items()):
            wrong.append("its weights are not those of the model")
        zeros = sum(int((weight == 0).sum()) for weight in there.values())
        if zeros < report.total - report.kept:
            wrong.append(f"it has {zeros:,} zeros for {report.total - report.kept:,} removed weights")
    if wrong:
        raise RuntimeError(f"{report.file}: loaded again, {' and '.join(wrong)}; nothing was written")
