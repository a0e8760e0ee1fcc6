"""Write a pruned model for other programs, load it as they do, and account for what became of it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.export import costs
from tune_prune.export.compaction import ROUNDING, compact
from tune_prune.export.formats import ExportInput, Format, Scores, formats
from tune_prune.pruning import checkpoint, masks
from tune_prune.tasks.splits import Split, as_float
from tune_prune.training.resources import one_thread

BATCHES = (1, 256)
"""Samples at a time that latency is measured of."""

BATCH = 500
"""Samples at a time otherwise."""


@dataclass(frozen=True)
class LatencyResult:
    """Seconds that a batch takes the model and what was written, on one core: medians, and the share's median."""

    batch: int
    before: float
    after: float
    share: float


@dataclass(frozen=True)
class ExportReport:
    """What a file holds, measured on it as it was loaded again; all of it agrees, or there is no file.

    Weights are those of weighted layers, no biases: `total` and `kept` by the masks. Bytes are those of all tensors as
    they are in memory, and of the file. Multiply-adds are for one sample: of the dense model, of the kept weights, and
    of those that the file's network has. `test_error` is in percent, of `images` test images; `same` are those that
    model and file call the same class; `apart` is how far the scores are apart at most, as a share of the greatest.
    `timed` is empty where the file's network is the model's own.
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
    same: int
    apart: float
    timed: Sequence[LatencyResult]

    def described(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What to say of it."""
        exact = "bit for bit" if self.apart == 0 else f"to {self.apart:.1e} of the greatest"
        return [
            f"{self.kept:,} of {self.total:,} weights ({self.factor:.1f}x fewer)",
            f"{self.bytes_file:,} bytes in the file, {self.bytes_dense:,} as they are in memory "
            f"({self.bytes_dense / self.bytes_file:.1f}x)",
            f"{self.macs_file:,.0f} of {self.macs_dense:,.0f} multiply-adds; {self.macs_kept:,.0f} by weights kept",
            f"test error {self.test_error:.2f} %; loaded again, {self.same:,} of {self.images:,} test images get the "
            f"same class, and scores are the same {exact}",
            *(
                f"{t.batch} at a time on one core: {1000 * t.before:.3g} ms before, {1000 * t.after:.3g} ms after, "
                f"{1 / t.share:.2f}x as fast"
                for t in self.timed
            ),
        ]


def export(path: Path, to: str, test: Split, out: Path | None, say: Callable[[str], None]) -> ExportReport:
    """Write a checkpoint's model in a format; `out` is a file or a folder, the working directory unless given.

    `test` are images to compare on. Raises `UserError` where the checkpoint, the images or the format do not fit the
    model, and `RuntimeError`, with nothing written, where what is loaded again is not what was written.
    """
    chosen = formats[to]
    saved = checkpoint.read(path)
    model, mask = checkpoint.restore(saved, str(path))
    target = _target(path, out, chosen)
    inputs = as_float(test.inputs)
    # what is timed is timed on one core, and an ONNX session takes as many threads as torch does
    with one_thread(), TemporaryDirectory() as folder:
        before = _scores(model.eval(), inputs, saved.model)
        # a copy: what is exported keeps the samples, and a view of them all images
        subject = _make_input(saved.model, model, mask, inputs[:2].clone(), chosen, say)
        written, aside = chosen.write(subject), Path(folder, f"model{chosen.ending}")
        aside.write_bytes(written)
        loaded = chosen.load(aside)
        account = _make_report(to, str(target), subject, len(written), loaded, inputs, test.labels, before)
        _check_report(chosen, loaded, subject, account)
    files.write_bytes(target.absolute(), written)
    return account


def _target(path: Path, out: Path | None, chosen: Format) -> Path:
    """The file to write."""
    name = f"{path.stem}{chosen.ending}"
    target = Path(name) if out is None else out / name if out.is_dir() else out
    if target.resolve() == path.resolve():
        raise UserError(f"--out {out}: that is the checkpoint itself; name another file")
    return target


def _make_input(
    name: str, model: nn.Module, mask: dict[str, Tensor], samples: Tensor, chosen: Format, say: Callable[[str], None]
) -> ExportInput:
    """The model, made smaller if the format is about that and it can be."""
    smaller = model
    if chosen.smaller:
        try:
            smaller = compact(model, samples)
        except UserError as error:
            if chosen.smaller == "must":
                raise
            say(f"not made smaller: {error}")
    return ExportInput(name, model, mask, samples, smaller)


@torch.no_grad()
def _scores(model: Scores, inputs: Tensor, name: str) -> Tensor:
    try:
        return torch.cat([model(part) for part in inputs.split(BATCH)])
    except Exception as error:  # a user's model may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"model {name!r} fails on inputs {list(inputs.shape)} ({reason}); name its --data") from error


def _make_report(
    to: str,
    name: str,
    subject: ExportInput,
    size: int,
    loaded: Scores,
    inputs: Tensor,
    labels: Tensor,
    before: Tensor,
) -> ExportReport:
    after = _scores(loaded, inputs, subject.name)
    batches = () if formats[to].exact else BATCHES  # the same network takes the same time
    counts = masks.kept_counts(subject.masks).values()
    uses = costs.count_uses(subject.model, subject.samples)
    small = costs.count_uses(subject.smaller, subject.samples)
    compressed = masks.compression(subject.masks)
    return ExportReport(
        format=to,
        file=name,
        total=sum(total for _, total in counts),
        kept=sum(kept for kept, _ in counts),
        compression=compressed,
        factor=masks.factor(compressed),
        bytes_dense=sum(value.nbytes for value in subject.model.state_dict().values()),
        bytes_file=size,
        macs_dense=costs.multiply_adds(masks.dense_masks(subject.model), uses),
        macs_kept=costs.multiply_adds(subject.masks, uses),
        macs_file=costs.multiply_adds(masks.dense_masks(subject.smaller), small),
        test_error=100 * float((after.argmax(1) != labels).float().mean()),
        images=len(labels),
        same=int((after.argmax(1) == before.argmax(1)).sum()),
        apart=float((after - before).abs().max() / before.abs().max().clamp_min(1e-12)),
        timed=[
            LatencyResult(n, *costs.compare_latency(subject.model, loaded, inputs[:n]))
            for n in batches
            if n <= len(inputs)
        ],
    )


def _check_report(chosen: Format, loaded: Scores, subject: ExportInput, account: ExportReport) -> None:
    """Raise a `RuntimeError` where the numbers of an account do not go together."""
    wrong = []
    if account.apart > (0.0 if chosen.exact else ROUNDING):
        wrong.append(f"its scores are {account.apart:.2g} of the greatest away from the model's")
    left = sum(int(weight.count_nonzero()) for weight in masks.prunable(subject.smaller).values())
    if left > account.kept:
        wrong.append(f"it has {left:,} weights that are not zero, and {account.kept:,} are kept")
    if isinstance(loaded, nn.Module) and chosen.exact:
        here, there = (masks.prunable(model) for model in (subject.model, loaded))
        if any(not torch.equal(weight, there[label]) for label, weight in here.items()):
            wrong.append("its weights are not those of the model")
        zeros = sum(int((weight == 0).sum()) for weight in there.values())
        if zeros < account.total - account.kept:
            wrong.append(f"it has {zeros:,} zeros for {account.total - account.kept:,} removed weights")
    if wrong:
        raise RuntimeError(f"{account.file}: loaded again, {' and '.join(wrong)}; nothing was written")
