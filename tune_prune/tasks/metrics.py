"""Evaluates a model on a split: class scores, error and loss."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.tasks.splits import Split, as_float


class Evaluation(NamedTuple):
    """A model's results on a split: misclassified inputs in percent, and mean cross-entropy in nats."""

    error: float
    loss: float


@torch.inference_mode()
def logits(model: nn.Module, inputs: Tensor, batch_size: int = 500) -> Tensor:
    """Computes a model's class scores in evaluation mode: inputs [n, ...] -> float32 [n, classes]."""
    model.eval()
    return torch.cat([model(as_float(part)).float() for part in inputs.split(batch_size)])


def evaluate(model: nn.Module, split: Split) -> Evaluation:
    """Measures the error in percent and the mean cross-entropy over a whole split."""
    scores = logits(model, split.inputs)
    wrong = int((scores.argmax(1) != split.labels).sum())
    return Evaluation(100 * wrong / len(split.labels), float(F.cross_entropy(scores, split.labels)))
