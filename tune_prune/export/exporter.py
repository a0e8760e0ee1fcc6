"""Exports a pruned model: writes it in a format, loads the file as other programs do, and compares the two.

A file whose loaded model is not the model that was written is never put in its place.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.export import costs
from tune_prune.export.compaction import compact
from tune_prune.export.comparison import FileError, compare, find_inputs, find_varying_axes
from tune_prune.export.formats import ANY_MODEL, ExportInput, Format, Scores, formats
from tune_prune.export.latency.readings import compare_latency
from tune_prune.export.report import ExportReport, LatencyResult
from tune_prune.export.resizing import own_state
from tune_prune.pruning import checkpoint, masks
from tune_prune.tasks.batches import Batch, count_samples, map_tensors
from tune_prune.tasks.metrics import ERROR, evaluate
from tune_prune.tasks.outputs import ROUNDING
from tune_prune.tasks.samples import take_first
from tune_prune.tasks.splits import AnySplit, Data
from tune_prune.tasks.task import check_compatible
from tune_prune.training.resources import limit_threads

BATCHES = (1, 256)
"""Sizes of the batches whose latency is measured."""


def export(path: Path, to: str, data: Data, out: Path | None, say: Callable[[str], None]) -> ExportReport:
    """Writes a checkpoint's model in the format `to`; `out` is a file or a folder, None the working directory.

    Model and file are compared on the test samples of `data`, in float32. Raises `UserError` where the checkpoint, the
    data or the format do not fit the model, and `RuntimeError`, with nothing written, where the loaded file is not the
    model.
    """
    chosen = formats[to]
    saved = checkpoint.read(path)
    model, mask = checkpoint.restore(saved, str(path))
    target = _target(path, out, chosen)
    check_compatible(saved.model, model, data, torch.device("cpu"), check_test=True)
    test = _in_float32(data.load_test())
    inputs = find_inputs(model.eval(), test)
    # latency is measured on one core, and an ONNX session takes as many threads as torch does
    with limit_threads(1), TemporaryDirectory() as folder:
        # a copy of the model, so that what writing it may change is seen
        export_input = _make_input(saved.model, copy.deepcopy(model), mask, inputs, to, say)
        written = chosen.write(export_input)
        loaded = _load(chosen, written, Path(folder, "pruned"))
        latencies = []
        if export_input.compacted is not export_input.model:  # else the file's network is the unpruned one
            # its removed weights are zeros here, which take the time of any other numbers
            unpruned = chosen.write(replace(export_input, compacted=export_input.model))
            latencies = _compare_latencies(_load(chosen, unpruned, Path(folder, "unpruned")), loaded, next(inputs()))
        report = _make_report(to, str(target), model, export_input, len(written), loaded, inputs(), test, latencies)
        _check_report(chosen, loaded, model, export_input, report)
    files.write_bytes(target.absolute(), written)
    return report


def _in_float32(test: AnySplit) -> AnySplit:
    """The split measured in float32, in which files compute."""
    objective = replace(test.objective, settings=replace(test.objective.settings, precision=None))
    return replace(test, objective=objective)


def _load(chosen: Format, written: bytes, stem: Path) -> Scores:
    """Loads the bytes of a file as the programs do that read such files."""
    path = stem.with_name(stem.name + chosen.ending)
    path.write_bytes(written)
    return chosen.load(path)


def _compare_latencies(dense: Scores, pruned: Scores, inputs: Batch) -> list[LatencyResult]:
    """Measures two networks in turn, for each size of a batch for which there are enough inputs."""
    found = []
    for size in BATCHES:
        part = take_first(inputs, size)
        if count_samples(part) == size:
            readings = compare_latency(dense, pruned, part)
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
    name: str,
    model: nn.Module,
    mask: dict[str, Tensor],
    inputs: Callable[[], Iterator[Batch]],
    to: str,
    say: Callable[[str], None],
) -> ExportInput:
    """Compacts the model where the format stores compacted models, or may and it can be."""
    # a copy: an exported program keeps the samples, and a view of them would keep all images
    samples = map_tensors(take_first(next(inputs()), 2), Tensor.clone)
    compacted, chosen = model, formats[to]
    if chosen.compaction:
        try:
            compacted = compact(model, samples)
        except UserError as error:
            if chosen.compaction == "must":
                raise UserError(f"--to {to}: {error}; {ANY_MODEL}") from error
            say(f"not compacted: {error}")
    varying = find_varying_axes(inputs()) if chosen.compaction == "may" else ()
    return ExportInput(name, model, mask, samples, compacted, varying)


def _make_report(
    to: str,
    name: str,
    model: nn.Module,
    export_input: ExportInput,
    size: int,
    loaded: Scores,
    inputs: Iterator[Batch],
    test: AnySplit,
    latencies: list[LatencyResult],
) -> ExportReport:
    """Compares the loaded file with the model, and measures both; `size` is the file's in bytes."""
    metric = test.objective.metric
    try:
        compared = compare(model, loaded, inputs, export_input.name, classes=metric == ERROR)
    except FileError as error:
        raise UserError(f"--to {to}: the file {error}; {ANY_MODEL}") from error
    counts = masks.kept_counts(export_input.masks).values()
    sample = test.head(2)
    uses, compacted_uses = costs.count_uses(model, sample), costs.count_uses(export_input.compacted, sample)
    compressed = masks.compression(export_input.masks)
    return ExportReport(
        format=to,
        file=name,
        total=sum(total for _, total in counts),
        kept=sum(kept for kept, _ in counts),
        compression=compressed,
        factor=masks.factor(compressed),
        bytes_dense=sum(value.nbytes for value in own_state(model).values()),
        bytes_file=size,
        macs_dense=costs.multiply_adds(masks.dense_masks(model), uses),
        macs_kept=costs.multiply_adds(export_input.masks, uses),
        macs_file=costs.multiply_adds(masks.dense_masks(export_input.compacted), compacted_uses),
        metric=metric,
        test_metric=evaluate(model, test).metric,
        images=test.count,
        agree=compared.agree,
        max_difference=compared.max_difference,
        runtime=formats[to].runtime,
        latencies=latencies,
    )


def _check_report(
    chosen: Format, loaded: Scores, model: nn.Module, export_input: ExportInput, report: ExportReport
) -> None:
    """Raises a `RuntimeError` where the loaded file's outputs, weights or zeros are not those of the model."""
    wrong = []
    if report.max_difference > (0.0 if chosen.exact else ROUNDING):
        wrong.append(f"its outputs differ from the model's by {report.max_difference:.2g} of the largest")
    left = sum(int(weight.count_nonzero()) for weight in masks.effective(export_input.compacted).values())
    if left > report.kept:
        wrong.append(f"it has {left:,} weights that are not zero, and {report.kept:,} are kept")
    if isinstance(loaded, nn.Module) and chosen.exact:
        here, there = (masks.effective(one) for one in (model, loaded))
        if any(not torch.equal(weight, there[label]) for label, weight in here.items()):
            wrong.append("its weights are not those of the model")
        zeros = sum(int((weight == 0).sum()) for weight in there.values())
        if zeros < report.total - report.kept:
            wrong.append(f"it has {zeros:,} zeros for {report.total - report.kept:,} removed weights")
    if wrong:
        raise RuntimeError(f"{report.file}: loaded again, {' and '.join(wrong)}; nothing was written")
