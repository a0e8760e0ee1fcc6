"""The statistics that pruners name as parameters; a statistic is measured only where some pruner names it.

Each is computed on training data and returns, by layer label, a tensor of the shape of the layer's weight. It may
leave out layers that `Context.layers` does not list.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tune_prune.common.registry import Registry
from tune_prune.pruning.masks import by_label, parameters, prunable
from tune_prune.tasks.splits import AnySplit

BATCH = 500
"""Samples in a pass."""

PROBES = 16
"""Random probes of the Hessian's diagonal; its standard error falls with their square root."""

CachedStatistics = Mapping[str, Mapping[str, Tensor]]
"""Statistics that were measured before, by name and layer label."""


@dataclass(frozen=True)
class Context:
    """The input of a statistic: the model as it is now, a sample of the training data, and a random generator.

    `say` gets a line now and then on the progress of a long measurement. `cached` statistics are used as they are and
    not measured again. Where `layers` is given, statistics that take long per layer are measured for those layers only.
    """

    model: nn.Module
    sample: AnySplit
    generator: torch.Generator
    say: Callable[[str], None] = lambda line: None
    cached: CachedStatistics = field(default_factory=dict)
    layers: Collection[str] | None = None

    def select_weights(self) -> dict[str, Tensor]:
        """Selects the weights to measure, by label: those of `layers`, or all."""
        weights = prunable(self.model)
        return weights if self.layers is None else {label: weights[label] for label in weights if label in self.layers}


Statistic = Callable[[Context], dict[str, Tensor]]
statistics: Registry[Statistic] = Registry("statistic")


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Makes a block in which outputs can be differentiated by all weights, twice too, in evaluation mode.

    Weights may be frozen. cuDNN can differentiate recurrent layers once, and in training mode alone.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    frozen = [weight for weight in parameters(model) if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        with torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext():
            yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


@statistics.register("gradient")
def gradient(context: Context) -> dict[str, Tensor]:
    """The gradient of the mean loss over the sample: one forward and one backward pass, in batches."""
    weights = parameters(context.model)
    totals = [_zeros_like(weight) for weight in weights]
    context.model.eval()
    sample = context.sample
    with differentiable(context.model):
        for batch in sample.batches(BATCH):
            loss = sample.total_loss(context.model, batch)
            # a layer that the model does not use is no part of the loss: its gradient is zero
            grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
            torch._foreach_add_(totals, grads, alpha=1 / sample.count)
    return by_label(context.model, totals)


@statistics.register("hessian")
def hessian_diagonal(context: Context) -> dict[str, Tensor]:
    """The diagonal of the Hessian of the mean loss, by Hutchinson's estimator with `PROBES` probes.

    The estimate is the mean of z * (H z) over random signs z (Bekas et al. 2007, sec. 1). It is unbiased for any model
    that can be differentiated twice. Gauss-Newton would leave out the curvature of the model itself, and the exact
    diagonal would take a backward pass for each weight. Cost for each batch of the sample: one forward and one backward
    pass, and for each probe a backward pass through that gradient, which takes about twice as long.
    """
    weights = parameters(context.model)
    probes = [[_draw_signs(weight, context.generator) for weight in weights] for _ in range(PROBES)]
    # fused attention cannot be differentiated twice
    with differentiable(context.model), sdpa_kernel(SDPBackend.MATH):
        return by_label(context.model, _measure_curvature(context, weights, probes))


def _zeros_like(weight: Tensor) -> Tensor:
    """Zeros to sum up in: float32 for weights in half precision, whose sums would lose small terms."""
    return torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32), requires_grad=False)


def _draw_signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(2, weight.shape, generator=generator).to(weight).mul_(2).sub_(1)


def _measure_curvature(context: Context, weights: Sequence[Tensor], probes: list[list[Tensor]]) -> list[Tensor]:
    """Measures the mean of z * (H z) over probes z, each a list of one tensor per weight."""
    context.model.eval()
    totals = [_zeros_like(weight) for weight in weights]
    sample = context.sample
    share = 1 / (sample.count * len(probes))
    for batch in sample.batches(BATCH):
        loss = sample.total_loss(context.model, batch)
        grads = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True, materialize_grads=True)
        for probe in probes:
            projection = torch.stack([(grad * z).sum() for grad, z in zip(grads, probe, strict=True)]).sum()
            products = torch.autograd.grad(
                projection, weights, retain_graph=True, allow_unused=True, materialize_grads=True
            )
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
