"""Images and labels as tensors in memory: a split, a data set of three splits, functions that check and hold out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.batches import as_float, count_steps
from tune_prune.tasks.fingerprints import hash_tensors
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.objective import CLASSIFICATION, Objective
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.sources import Rows


@dataclass(frozen=True)
class Split:
    """Inputs, uint8 or float32 [n, ...], and labels, int64 [n], of a classification; all are in memory.

    Bytes become floats by division by `scale`: 255, but 256 for the built-in models, as in torch7-pruner. Cross-entropy
    is the loss, and the misclassified percent the metric; `objective` says how models are trained. `BatchSplit` has the
    same methods for any other task. Models are measured on `batch_size` inputs at a time.
    """

    inputs: Tensor
    labels: Tensor
    scale: float = 255.0
    objective: Objective = CLASSIFICATION
    batch_size: int = 500

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.inputs, self.labels))

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def count_labels(self) -> Tensor:
        """Counts the labels of each class, int64 [classes]."""
        return self.labels.bincount()

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
        return self.labels.device

    def steps(self, batch_size: int) -> int:
        """Counts the whole batches of an epoch, at least 1."""
        return count_steps(self.count, batch_size)

    def to(self, device: torch.device) -> "Split":
        """Moves the split to a device; no copy is made where it is there already."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device))

    def join(self, other: "Split") -> "Split":
        """This split and another as one."""
        return replace(
            self, inputs=torch.cat([self.inputs, other.inputs]), labels=torch.cat([self.labels, other.labels])
        )

    def as_float(self, inputs: Tensor) -> Tensor:
        """Converts inputs of this split to what a model takes: bytes to float32 divided by `scale`."""
        return as_float(inputs, self.scale)

    def draw(self, count: int, generator: torch.Generator) -> "Split":
        """Draws `count` samples at random, or all where there are no more."""
        index = torch.randperm(self.count, generator=generator)[:count].to(self.labels.device)
        return replace(self, inputs=self.inputs[index], labels=self.labels[index])

    def head(self, count: int) -> "Split":
        """The first samples."""
        return replace(self, inputs=self.inputs[:count], labels=self.labels[:count])

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields all samples once, in order, `batch_size` at a time: float inputs and labels."""
        size = batch_size or self.batch_size
        for inputs, labels in zip(self.inputs.split(size), self.labels.split(size), strict=True):
            yield self.as_float(inputs), labels

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches of a training epoch, in random order: float inputs and labels."""
        for inputs, labels in Rows((self.inputs, self.labels)).shuffled(batch_size, generator):
            yield self.as_float(inputs), labels

    def random_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws samples at random, with repetition: float inputs and labels."""
        index = torch.randint(self.count, (min(batch_size, self.count),), generator=generator).to(self.labels.device)
        return self.as_float(self.inputs[index]), self.labels[index]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Computes the mean cross-entropy of a batch, a scalar."""
        return F.cross_entropy(model(batch[0]), batch[1])

    def total_loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Computes the sum of the cross-entropies of a batch's samples."""
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    def run(self, model: nn.Module, count: int, batch_size: int) -> None:
        """Runs a model on the first `count` samples, in batches of about `batch_size`."""
        inputs = self.inputs[:count]
        for part in inputs.chunk(max(1, len(inputs) // batch_size)):
            model(self.as_float(part))

    @torch.inference_mode()
    def scores(self, model: nn.Module) -> Tensor:
        """Computes a model's class scores in evaluation mode, float32 [n, classes]."""
        model.eval()
        with use_precision(self.objective.settings.precision, self.device):
            return torch.cat([model(self.as_float(part)).float() for part in self.inputs.split(self.batch_size)])

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measures the error in percent and the mean cross-entropy over the whole split."""
        scores = self.scores(model)
        wrong = int((scores.argmax(1) != self.labels).sum())
        return Evaluation(100 * wrong / self.count, float(F.cross_entropy(scores, self.labels)))

    def find_wrong(self, model: nn.Module) -> list[int]:
        """The numbers of the samples that a model gets wrong, ascending."""
        wrong: list[int] = (self.scores(model).argmax(1) != self.labels).nonzero().flatten().tolist()
        return wrong

    def fingerprint(self) -> dict[str, str]:
        """Hashes inputs and labels by their content."""
        return {"inputs": hash_tensors({"": self.inputs}), "labels": hash_tensors({"": self.labels})}


AnySplit = Split | BatchSplit
"""A split of any task."""


@dataclass(frozen=True)
class Data:
    """A data set. The test split is a function, so that reading it is a deliberate act; `name` is for messages."""

    train: AnySplit
    validation: AnySplit
    load_test: Callable[[], AnySplit]
    name: str = ""

    def with_test_batches(self, size: int | None) -> "Data":
        """The same data, tested on so many samples at a time; None leaves it."""
        if size is None:
            return self
        return replace(self, load_test=lambda: replace(self.load_test(), batch_size=size))


def check_split(data: str, part: str, split: tuple[object, object] | Split) -> Split:
    """Returns inputs, uint8 or float32 [n, ...], and labels, int64 [n], after checking that they are finite and whole.

    `part` is what messages call this split of the data set `data`. Raises a `UserError` that names the first input or
    label that is wrong.
    """
    inputs, labels = split
    if not (isinstance(inputs, Tensor) and isinstance(labels, Tensor)) or not (
        labels.dim() == 1 and inputs.shape[:1] == labels.shape != (0,)
    ):
        what = "must be a pair of tensors, inputs [n, ...] and labels [n], n > 0"
        raise UserError(f"data {data!r}: every split {what}; the {part} split is not")
    if labels.is_floating_point() or labels.is_complex():
        # NaN is not equal to itself
        if len(wrong := (labels != labels.real.trunc()).nonzero()) or len(wrong := labels.isinf().nonzero()):
            at = int(wrong[0])
            rule = f"{labels[at].item():g}; labels are the numbers of classes, 0, 1, 2 ..."
            raise UserError(f"data {data!r}: {part} label {at} is {rule}")
        labels = labels.real
    if not inputs.is_floating_point() and inputs.dtype != torch.bool:
        return Split(inputs, labels.long())  # bytes become floats by the batch, and other integers stay integers
    inputs = inputs.float()
    for first in range(0, len(inputs), 1000):
        finite = inputs[first : first + 1000].isfinite().flatten(1).all(1)
        if not finite.all():
            at = first + int(finite.int().argmin())
            raise UserError(f"data {data!r}: {part} input {at} holds NaN or infinity; every number must be finite")
    return Split(inputs, labels.long())


def hold_out(split: Split, count: int | None = None) -> tuple[Split, Split]:
    """Splits into the rest and `count` images, by default a tenth; the draw is random and always the same."""
    parts = ((split.inputs[index], split.labels[index]) for index in draw_held_out(split.count, count))
    first, second = (replace(split, inputs=inputs, labels=labels) for inputs, labels in parts)
    return first, second


def draw_held_out(n: int, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Draws `count` of n images that are held out, by default a tenth; returns the indices of the rest, and theirs."""
    count = max(1, n // 10) if count is None else count
    if n <= count:
        raise UserError(f"{n} images are too few to hold some out")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return order[count:].sort().values, order[:count].sort().values
