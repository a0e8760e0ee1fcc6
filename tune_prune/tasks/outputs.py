"""What a model returns: the tensors and the class scores in it, and losses of class scores."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.tasks.batches import Batch, call_model, iterate_tensors, split_batch


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
