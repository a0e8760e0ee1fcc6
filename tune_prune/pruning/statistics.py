"""What a criterion may ask for. A criterion names a statistic as a parameter, and only then is it measured.

Every statistic is computed on training images and returns a tensor of its weight's shape for each layer, at the least
for those that are wanted.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.common.registry import Registry
from tune_prune.pruning.masks import prunable
from tune_prune.tasks.splits import Split, as_float


@dataclass(frozen=True)
class Context:
    """What statistics are measured with: the model as it is now, a sample of training images, a random source.

    `say` is told now and then how far a long measurement is. `known` are statistics, by name and layer, that were
    measured already and are not measured again. A statistic that takes its time a layer leaves out layers that are not
    among `only`, where that is given.
    """

    model: nn.Module
    sample: Split
    generator: torch.Generator
    say: Callable[[str], None] = lambda line: None
    known: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    only: Collection[str] | None = None

    def wanted(self) -> dict[str, Tensor]:
        """The weights that are to be measured, by label."""
        layers = prunable(self.model)
        return layers if self.only is None else {label: layers[label] for label in layers if label in self.only}


Statistic = Callable[[Context], dict[str, Tensor]]
statistics: Registry[Statistic] = Registry("statistic")

BATCH = 500
"""Images in a pass."""

PROBES = 16
"""Random probes of the Hessian's diagonal; its standard error falls with their square root."""


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


@statistics.register("hessian")
def hessian_diagonal(context: Context) -> dict[str, Tensor]:
    """The diagonal of the Hessian of the mean cross-entropy, by Hutchinson's estimator with `PROBES` probes.

    The mean of z * (H z) over random signs z (Bekas et al. 2007, sec. 1). It is unbiased for the true diagonal of any
    model that can be differentiated twice, where Gauss-Newton leaves the curvature of the model itself out and the
    exact diagonal takes a backward pass a weight. Cost: for each batch of the sample one forward and one backward pass,
    and then one backward pass through that gradient, about twice as dear, a probe.
    """
    layers = prunable(context.model)
    probes = [[_signs(w, context.generator) for w in layers.values()] for _ in range(PROBES)]
    return dict(zip(layers, _curvature(context, list(layers.values()), probes), strict=True))


def _signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(2, weight.shape, generator=generator).to(weight).mul_(2).sub_(1)


def _curvature(context: Context, weights: list[Tensor], probes: list[list[Tensor]]) -> list[Tensor]:
    """The mean over probes z of z * (H z): one probe holds a tensor a weight."""
    context.model.eval()
    totals = [torch.zeros_like(weight) for weight in weights]
    inputs, labels = context.sample
    share = 1 / (len(labels) * len(probes))
    for images, targets in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
        loss = F.cross_entropy(context.model(as_float(images)), targets, reduction="sum")
        grads = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True, materialize_grads=True)
        for probe in probes:
            along = torch.stack([(grad * z).sum() for grad, z in zip(grads, probe, strict=True)]).sum()
            products = torch.autograd.grad(along, weights, retain_graph=True, allow_unused=True, materialize_grads=True)
            for total, product, z in zip(totals, products, probe, strict=True):
                total.addcmul_(product, z, value=share)
    return totals


@statistics.register("noise")
def noise(context: Context) -> dict[str, Tensor]:
    """Uniform draws from [0, 1)."""
    return {
        label: torch.rand(weight.shape, generator=context.generator).to(weight.device)
        for label, weight in prunable(context.model).items()
    }


CachedStatistics = Mapping[str, Mapping[str, Tensor]]
"""Statistics by name and layer label."""
