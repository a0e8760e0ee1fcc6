"""What a model does on a split: its class scores, its error and its loss."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.tasks.splits import Split, as_float


class Evaluation(NamedTuple):
    """What a model does on a split: misclassified in percent, and mean cross-entropy in nats."""

    error: float
    loss: float


@torch.inference_mode()
def logits(model: nn.Module, inputs: Tensor, batch_size: int = 500) -> Tensor:
    """What the model answers: inputs [n, ...] -> float32 [n, classes], in evaluation mode."""
    model.eval()
    return torch.cat([model(as_float(part)) for part in inputs.split(batch_size)])


def evaluate(model: nn.Module, split: Split) -> Evaluation:
    """Error in percent and mean cross-entropy over a whole split."""
    scores = logits(model, split.inputs)
    wrong = int((scores.argmax(1) != split.labels).sum())
    return Evaluation(100 * wrong / len(split.labels), float(F.cross_entropy(scores, split.labels)))
