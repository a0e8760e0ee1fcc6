"""A split of any task: batches from a source, and the objective that a model is trained and judged by."""

import itertools
import math
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.tasks.augment import Augment
from tune_prune.tasks.batches import (
    Batch,
    as_float,
    as_tensors,
    count_samples,
    describe_structure,
    iterate_tensors,
    map_tensors,
    split_batch,
    to_device,
)
from tune_prune.tasks.fingerprints import hash_tensors, hash_texts
from tune_prune.tasks.metrics import ERROR, Evaluation
from tune_prune.tasks.objective import Objective
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.random_states import RandomStates, seeded_generators
from tune_prune.tasks.samples import take_first
from tune_prune.tasks.sources import Joined, Kept, Rows, Source
from tune_prune.tasks.user_code import user_code

EVALUATION_BATCH = 256
"""Samples in a batch where a model is evaluated or measured, unless the data decides it."""

LOSS_SAMPLES = 1024
"""Samples, about, on which the loss is measured where the metric is a user's function."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class BatchSplit:
    """Batches of a source on a device; it has the methods of `Split`, for any objective.

    `name` is what messages call the split. Bytes in the inputs of pairs become floats, divided by `scale`. What a
    user's data draws at random, from torch's, Python's or NumPy's own generators, is the same in every reading of
    all samples, and drawn anew in every training epoch. `augment` distorts the inputs of training batches. Outside of
    training, batches have `batch_size` samples, unless the data decides it.
    """

    source: Source
    objective: Objective
    name: str = ""
    device: torch.device = CPU
    scale: float = 255.0
    augment: Augment | None = None
    batch_size: int = EVALUATION_BATCH

    @property
    def count(self) -> int:
        """The number of samples."""
        return self.source.count

    def steps(self, batch_size: int) -> int:
        """Counts the batches of a training epoch, at least 1."""
        return self.source.steps(batch_size)

    def to(self, device: torch.device) -> "BatchSplit":
        """The same split, whose batches are moved to a device when they are read."""
        return replace(self, device=device)

    def join(self, other: "BatchSplit") -> "BatchSplit":
        """This split and another as one."""
        return replace(self, source=Joined((self.source, other.source)))

    def batches(self, batch_size: int | None = None) -> Iterator[Batch]:
        """Yields all samples once, in order, in batches of `batch_size`, by default the split's."""
        return self._read(lambda: self.source.in_order(batch_size or self.batch_size), RandomStates(0))

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yields the batches of a training epoch, in random order."""
        batches = self._read(lambda: self.source.shuffled(batch_size, generator), None)
        return batches if self.augment is None else map(self._distort, batches)

    def _distort(self, batch: Batch) -> Batch:
        name = self.objective.name_of("augment")
        if not (isinstance(batch, tuple) and isinstance(batch[0], Tensor) and self.augment is not None):
            raise UserError(
                f"augment {name!r} is for pairs of an input tensor and labels; the batches of {self.name!r} are "
                f"{describe_structure(batch)}"
            )
        with user_code("augment", name, self.augment):
            return (self.augment(batch[0]), batch[1])

    def _read(self, open_source: Callable[[], Iterator[Batch]], states: RandomStates | None) -> Iterator[Batch]:
        plain = states is None or isinstance(self.source, Rows | Kept)
        batches, structure = None, ""
        has_rows = isinstance(self.source, Rows)  # which are tensors of one structure
        for number in itertools.count(1):
            with user_code("data", self.name), nullcontext() if plain or states is None else states.active():
                batches = open_source() if batches is None else batches
                batch = next(batches, None)
                batch = batch if has_rows else as_tensors(batch)
            if batch is None:
                return
            found = structure if has_rows else describe_structure(batch)
            if found != (structure := structure or found):
                raise UserError(
                    f"data {self.name!r}: batch {number} is {found}, and the first is {structure}; "
                    "all batches must have one structure"
                )
            yield self._prepare(to_device(batch, self.device))

    def _prepare(self, batch: Batch) -> Batch:
        """Converts the bytes in the inputs of a pair to floats, and the labels of cross-entropy to int64."""
        if isinstance(batch, tuple | list) and len(batch) == 2:
            return (map_tensors(batch[0], lambda part: as_float(part, self.scale)), self._convert_labels(batch[1]))
        if isinstance(batch, MutableMapping) and "labels" in batch:
            batch["labels"] = self._convert_labels(batch["labels"])
        return batch

    def _convert_labels(self, labels: Batch) -> Batch:
        if self.objective.loss_function is not None:
            return labels
        return map_tensors(labels, lambda part: part if part.is_floating_point() else part.long())

    def draw(self, count: int, generator: torch.Generator) -> "BatchSplit":
        """Draws about `count` samples at random, and keeps them in memory: the first batches of a training epoch."""
        seed = int(torch.randint(2**62, (), generator=generator))
        with seeded_generators(seed):
            return replace(self, augment=None)._keep_first(self.epoch(min(count, EVALUATION_BATCH), generator), count)

    def head(self, count: int) -> "BatchSplit":
        """Keeps the first samples in memory, about `count`."""
        return self._keep_first(self.batches(min(count, EVALUATION_BATCH)), count)

    def _keep_first(self, batches: Iterator[Batch], count: int) -> "BatchSplit":
        kept, left = list[Batch](), count
        for batch in batches:
            kept.append(take_first(batch, left))
            left -= count_samples(kept[-1])
            if left <= 0:
                break
        return replace(self, source=Kept(tuple(kept)))

    def random_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draws a batch at random: of a sample in memory one of its batches."""
        return next(self.epoch(batch_size, generator))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Computes the mean loss of a batch, a scalar."""
        return self.objective.loss(model, batch)

    def total_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Computes the sum of the losses of a batch's samples."""
        return self.objective.loss(model, batch) * count_samples(batch)

    def run(self, model: nn.Module, count: int, batch_size: int) -> None:
        """Runs a model on the first samples, about `count`, as the loss calls it."""
        for batch in self.head(count).batches(batch_size):
            self.objective.loss(model, batch)

    @torch.no_grad()
    def mean_loss(self, model: nn.Module, count: int | None = None) -> float:
        """Computes the mean loss of the samples, or about the first `count`, in evaluation mode."""
        model.eval()
        total, done = 0.0, 0
        for batch in self.batches():
            size = count_samples(batch)
            total, done = total + float(self.objective.loss(model, batch)) * size, done + size
            if count is not None and done >= count:
                break
        return total / done

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measures the metric over the whole split, and the mean loss; of a user's metric, of `LOSS_SAMPLES`."""
        model.eval()
        with use_precision(self.objective.settings.precision, self.device):
            if self.objective.metric_function is None:
                return self._evaluate_error(model)
            value = self.objective.measure(model, self.batches())
            return Evaluation(value, self.mean_loss(model, LOSS_SAMPLES) if math.isfinite(value) else math.nan)

    def _evaluate_error(self, model: nn.Module) -> Evaluation:
        """Measures the misclassified percent of all labels that count, and the mean loss, in one pass."""
        total, done, wrong, counted = 0.0, 0, 0, 0
        for batch in self.batches():
            loss, predicted, labels = self.objective.classify(model, batch)
            size = count_samples(batch)
            total, done = total + float(loss) * size, done + size
            counts = labels >= 0  # negative labels, as -100, are left out of cross-entropy as well
            wrong += int(((predicted != labels) & counts).sum())
            counted += int(counts.sum())
        return Evaluation(100 * wrong / max(1, counted), total / done)

    @torch.no_grad()
    def find_wrong(self, model: nn.Module) -> list[int] | None:
        """The numbers of the samples that a model gets wrong, ascending; None where a sample has several labels."""
        model.eval()
        found, first = list[int](), 0
        with use_precision(self.objective.settings.precision, self.device):
            for batch in self.batches():
                _, predicted, labels = self.objective.classify(model, batch)
                if labels.dim() != 1 or (labels < 0).any():  # negative labels are left out of the error
                    return None
                found += ((predicted != labels).nonzero().flatten() + first).tolist()
                first += len(labels)
        return found

    def check(self, model: nn.Module, *, with_gradient: bool) -> None:
        """Raises a `UserError` where loss or metric cannot be computed of this split, or the loss has no gradient."""
        self.check_loss(model, with_gradient=with_gradient)
        self.evaluate(model)

    def check_loss(self, model: nn.Module, *, with_gradient: bool) -> None:
        """Raises a `UserError` where the loss cannot be computed of this split, or has no gradient."""
        model.eval()
        for batch in self.batches():
            loss = self.objective.loss(model, batch)
            if with_gradient:
                self.objective.check_gradient(loss)

    def count_labels(self) -> Tensor:
        """Counts the labels of a classification, int64 [classes]; empty where another metric or structure is used."""
        counts = torch.zeros(0, dtype=torch.int64)
        if self.objective.metric != ERROR or self.objective.metric_function is not None:
            return counts
        for batch in self.batches():
            labels = split_batch(batch)[1].flatten()
            found = labels[labels >= 0].long().bincount(minlength=len(counts)).cpu()
            found[: len(counts)] += counts
            counts = found
        return counts

    def fingerprint(self) -> dict[str, str]:
        """Hashes all samples where they are in memory; else their number and the first batch, or eight of them."""
        if isinstance(self.source, Kept) or (isinstance(self.source, Rows) and not self.source.mapped):
            return {"samples": hash_texts(map(_hash_batch, self.source.in_order(EVALUATION_BATCH)))}
        return {"samples": f"{self.count} {_hash_batch(next(self.batches(8)))}"}


def _hash_batch(batch: Batch) -> str:
    return hash_tensors({str(at): tensor for at, tensor in enumerate(iterate_tensors(batch))})
