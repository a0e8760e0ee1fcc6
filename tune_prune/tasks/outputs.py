"""What a model returns: tensors and class scores in it, losses of class scores, and how far two outputs differ."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.tasks.batches import Batch, call_model, iterate_tensors, split_batch

ROUNDING = 1e-4
"""The largest difference of outputs, as a share of the largest output, that another order of summation may make."""


def _compute_own_loss(model: nn.Module, batch: Batch) -> Tensor | None:
    """The loss that a model computes itself, as those of Hugging Face do of a mapping with labels; else None."""
    if not (isinstance(batch, Mapping) and "labels" in batch):
        return None
    if "labels" not in inspect.signature(model.forward).parameters:
        return None
    output = model(**batch)
    return _find_tensor(output, "loss")


def cross_entropy(model: nn.Module, batch: Batch, label_smoothing: float) -> Tensor:
    """The loss that a model computes itself, or the mean cross-entropy of its class scores with labels."""
    own = _compute_own_loss(model, batch)
    if own is not None:
        if label_smoothing:
            raise UserError(f"the model {type(model).__name__} computes its loss itself; leave out label_smoothing")
        return own
    inputs, labels = split_batch(batch)
    return F.cross_entropy(float_scores(call_model(model, inputs)), labels, label_smoothing=label_smoothing)


def float_scores(output: object) -> Tensor:
    """The class scores in what a model returns, as float32; a `UserError` where there are none."""
    scores = find_scores(output)
    if not isinstance(scores, Tensor):
        raise UserError(
            f"the model returns {type(output).__name__}, which holds no class scores; name a function "
            "loss(model, batch) and a metric(model, batches)"
        )
    return scores.float()


def predict_classes(output: object, labels: object) -> Tensor:
    """The class of the highest score for each label; a `UserError` where the targets are no classes of these scores."""
    scores = float_scores(output)
    axis = -1 if find_logits(output) is not None else 1
    shape = [size for at, size in enumerate(scores.shape) if at != axis % max(1, scores.dim())]
    if not isinstance(labels, Tensor) or labels.is_floating_point() or list(labels.shape) != shape:
        given = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        counts = f"the error counts wrong classes, and the targets are {given} for outputs {list(scores.shape)}"
        raise UserError(f"{counts}; name a metric(model, batches)")
    return scores.argmax(axis)


def find_scores(output: Any) -> Any:
    """The `logits` of what a model returns, or the only tensor in it; what has several tensors is returned as it is."""
    tensors = list_tensors(output)
    return tensors[0] if len(tensors) == 1 and not isinstance(output, list) else output


def list_tensors(output: object) -> list[Tensor]:
    """The floating-point tensors of what a model returns: its `logits` alone where it has some, else all of them."""
    logits = find_logits(output)
    if logits is not None:
        return [logits]
    return [tensor for tensor in iterate_tensors(output) if tensor.is_floating_point() and tensor.dim()]


def find_logits(output: object) -> Tensor | None:
    """The `logits` of what a model returns, as those of Hugging Face have them; None where there are none."""
    return _find_tensor(output, "logits")


def _find_tensor(output: object, name: str) -> Tensor | None:
    """The tensor of this name in a mapping or an object."""
    found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return found if isinstance(found, Tensor) else None


def divergence(scores: Tensor, wanted: Tensor, temperature: float, classes: int) -> Tensor:
    """The KL divergence of softened class scores; `classes` is the dimension of the classes."""
    ours, theirs = (one.float().movedim(classes, -1).flatten(0, -2) / temperature for one in (scores, wanted))
    soft = F.kl_div(F.log_softmax(ours, 1), F.log_softmax(theirs, 1), log_target=True, reduction="batchmean")
    # the square keeps the soft gradients' size independent of the temperature
    return temperature * temperature * soft


@dataclass
class Difference:
    """The largest difference of two models' outputs, tensor by tensor, over all batches that were added."""

    differences: list[float] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The largest difference of two values of a tensor, as a share of its largest value; of all tensors."""
        pairs = zip(self.differences, self.largest, strict=True)
        return max((difference / max(largest, 1e-12) for difference, largest in pairs), default=0.0)

    def add(self, before: list[Tensor], after: list[Tensor]) -> None:
        """Adds the tensors of two outputs for the same inputs. Other shapes, or NaN in one alone, differ infinitely."""
        count = max(len(before), len(after), len(self.largest))
        for values in (self.differences, self.largest):
            values += [0.0] * (count - len(values))
        for at, (ours, theirs) in enumerate(zip(before, after, strict=False)):
            self.differences[at] = max(self.differences[at], _largest_difference(ours, theirs))
            finite = ours[ours.isfinite()]
            self.largest[at] = max(self.largest[at], float(finite.abs().max()) if finite.numel() else 0.0)
        if len(before) != len(after):
            self.differences[-1] = torch.inf


def _largest_difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return torch.inf
    if not ours.is_floating_point():
        ours, theirs = ours.double(), theirs.double()
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())  # infinities among them, as of masks
    apart = (ours - theirs).abs().nan_to_num(torch.inf).masked_fill(same, 0)
    return float(apart.max()) if apart.numel() else 0.0


def differ(one: object, other: object) -> float:
    """How far two outputs of models lie apart, as a share of the largest value of a tensor."""
    difference = Difference()
    difference.add(*([tensor.detach() for tensor in iterate_tensors(output)] for output in (one, other)))
    return difference.share
