"""What a criterion may ask for. A criterion names a statistic as a parameter, and only then is it measured.

Every statistic is computed on training images and returns one tensor per layer, of its weight's shape.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.data import Split, as_float
from tune_prune.masks import prunable
from tune_prune.registry import Registry


@dataclass(frozen=True)
class Context:
    """What statistics are measured with: the model as it is now, a sample of training images, a random source."""

    model: nn.Module
    sample: Split
    generator: torch.Generator


Statistic = Callable[[Context], dict[str, Tensor]]
statistics: Registry[Statistic] = Registry("statistic")

BATCH = 500


def draw_sample(split: Split, images: int, generator: torch.Generator) -> Split:
    """`images` images of a split at random, or all where it has no more."""
    index = torch.randperm(len(split.labels), generator=generator)[:images].to(split.labels.device)
    return Split(split.inputs[index], split.labels[index])


@statistics.register("gradient")
def gradient(context: Context) -> dict[str, Tensor]:
    """The gradient of the mean cross-entropy over the sample: one forward and one backward pass, in batches."""
    layers = prunable(context.model)
    totals = {label: torch.zeros_like(weight) for label, weight in layers.items()}
    context.model.eval()
    inputs, labels = context.sample
    for images, targets in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
        loss = F.cross_entropy(context.model(as_float(images)), targets, reduction="sum")
        # a layer that this model does not use has no part in the loss: its gradient is zero
        grads = torch.autograd.grad(loss, list(layers.values()), allow_unused=True, materialize_grads=True)
        torch._foreach_add_(list(totals.values()), grads, alpha=1 / len(labels))
    return totals


@statistics.register("noise")
def noise(context: Context) -> dict[str, Tensor]:
    """Uniform draws from [0, 1)."""
    return {
        label: torch.rand(weight.shape, generator=context.generator).to(weight.device)
        for label, weight in prunable(context.model).items()
    }
