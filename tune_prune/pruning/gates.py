"""Learned gates: a factor on every weight, 1 at first, trained under a penalty while the weights stay as they are.

The penalty pulls all factors towards 0, and the loss keeps those up that the network needs: a weight whose
factor became small can be removed (torch7-pruner's `l1` and `l2`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tune_prune.pruning.masks import by_label, parameters
from tune_prune.pruning.statistics import Context, differentiable, statistics

STEPS = 300
"""Steps of Adam on the factors, each on a batch of the sample."""

BATCH = 128
"""Samples in a batch."""

STRENGTH = 3e-4
"""The gradient of the penalty at a factor of 1, which works against that of the loss, g w.

A larger value separates fewer needed weights from the others, a smaller one leaves more factors near 1
(experiments/pruners)."""

L1_DISTANCE, L2_DISTANCE = 1.3, 3.0
"""The distance that a factor can travel in all steps together.

For L1, whose pull stays constant, a little more than the distance from 1 to 0 is enough. With less, needed weights are
not separated from the others (experiments/pruners)."""

Penalty = Callable[[Tensor], Tensor]
"""The slope of a penalty: from factors to the penalty's gradient."""


@statistics.register("l1_gate")
def l1_gate(context: Context) -> dict[str, Tensor]:
    """Factors learned under an L1 penalty, which pulls all of them towards 0 equally hard."""
    return learn_gates(context, torch.sign, L1_DISTANCE, falling=True)


@statistics.register("l2_gate")
def l2_gate(context: Context) -> dict[str, Tensor]:
    """Factors learned under an L2 penalty, which pulls larger factors harder, and therefore takes longer."""
    return learn_gates(context, lambda gate: gate, L2_DISTANCE)


class GatedLoss(nn.Module):
    """A model's loss as a module, whose parameters can be replaced for a call, however the loss calls the model."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        """Computes the loss of a batch."""
        return self._loss(self.model, batch)


def learn_gates(context: Context, slope: Penalty, distance: float, falling: bool = False) -> dict[str, Tensor]:
    """Learns a factor for every weight, by layer, in `STEPS` steps on the loss plus `STRENGTH` times the penalty.

    `distance` bounds how far a factor travels in all steps together. With `falling` the step size falls linearly to 0,
    so that factors which the penalty holds at 0 come to rest there.

    Each step takes one forward and one backward pass over a batch. The optimizer is Adam (Kingma and Ba
    2015), whose steps have one size however large a layer's gradients are; plain gradient descent leaves most factors
    where the penalty alone puts them.
    """
    model = context.model.eval()
    weights = parameters(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    # in float32 for weights in half precision, in which a step is lost beside a factor of 1
    types = [torch.promote_types(weight.dtype, torch.float32) for weight in weights]
    gates = [torch.ones_like(w, dtype=dtype, requires_grad=True) for w, dtype in zip(weights, types, strict=True)]
    optimizer = torch.optim.Adam(gates, lr=distance / STEPS, betas=(0.9, 0.99))
    gated_loss = GatedLoss(model, context.sample.loss)
    for step in range(STEPS):
        if falling:
            optimizer.param_groups[0]["lr"] = 2 * distance / STEPS * (1 - step / STEPS)
        batch = context.sample.random_batch(BATCH, context.generator)
        gated = {
            f"model.{names[id(weight)]}": (weight.detach() * gate).to(weight.dtype)
            for weight, gate in zip(weights, gates, strict=True)
        }
        with differentiable(model):
            loss = functional_call(gated_loss, gated, (batch,))
        grads = torch.autograd.grad(loss, gates, allow_unused=True, materialize_grads=True)
        for gate, grad in zip(gates, grads, strict=True):
            gate.grad = grad + STRENGTH * slope(gate.detach())
        optimizer.step()
    return by_label(model, [gate.detach() for gate in gates])
