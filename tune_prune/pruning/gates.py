"""Learned gates: a factor on every weight, starting at 1 and learned alone under a penalty on the factors.

The weights stay as they are (torch7-pruner's `l1` and `l2`). The penalty draws all factors to 0 and the cross-entropy
holds those that the network needs; a weight whose factor got small is one that it can do without.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from tune_prune.pruning.masks import prunable
from tune_prune.pruning.statistics import Context, statistics
from tune_prune.tasks.splits import as_float

STEPS = 300
"""Steps of Adam on the factors, each on a batch of the sample."""

BATCH = 128
STRENGTH = 3e-4
"""The penalty's gradient on a factor of 1. Against it stands the cross-entropy's, g w; stronger, it tells fewer needed
weights from the others, weaker, it leaves more factors where they were (experiments/pruners)."""

L1_WAY, L2_WAY = 1.3, 3.0
"""How far a factor could go in all steps together. A little more than the way from 1 to 0 is enough for a penalty that
draws as hard to the end; with less, what is needed is not told from what is not (experiments/pruners)."""

Penalty = Callable[[Tensor], Tensor]


def learn_gates(context: Context, slope: Penalty, way: float, falling: bool = False) -> dict[str, Tensor]:
    """Factors per layer after `STEPS` steps on cross-entropy plus `STRENGTH` times the penalty with this slope.

    `way` is how far a factor could go in all steps together; with `falling` the steps get shorter in proportion to
    those that are left, so that factors which the penalty holds at 0 come to rest there.

    One forward and one backward pass over a batch of images a step. Adam (Kingma and Ba 2015), since its steps are of
    one size whatever that of a layer's gradients: plain descent leaves most factors where the penalty alone puts them.
    """
    model = context.model.eval()
    layers = prunable(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights = {label: weight.detach() for label, weight in layers.items()}
    gates = {label: torch.ones_like(weight).requires_grad_() for label, weight in weights.items()}
    optimizer = torch.optim.Adam(gates.values(), lr=way / STEPS, betas=(0.9, 0.99))
    inputs, labels = context.sample
    for step in range(STEPS):
        if falling:
            optimizer.param_groups[0]["lr"] = 2 * way / STEPS * (1 - step / STEPS)
        index = torch.randint(len(labels), (min(BATCH, len(labels)),), generator=context.generator).to(labels.device)
        gated = {names[id(layers[label])]: weights[label] * gate for label, gate in gates.items()}
        loss = F.cross_entropy(functional_call(model, gated, (as_float(inputs[index]),)), labels[index])
        grads = torch.autograd.grad(loss, list(gates.values()), allow_unused=True, materialize_grads=True)
        for gate, grad in zip(gates.values(), grads, strict=True):
            gate.grad = grad + STRENGTH * slope(gate.detach())
        optimizer.step()
    return {label: gate.detach() for label, gate in gates.items()}


@statistics.register("l1_gate")
def l1_gate(context: Context) -> dict[str, Tensor]:
    """Factors learned under an L1 penalty: all are drawn to 0 equally hard."""
    return learn_gates(context, torch.sign, way=L1_WAY, falling=True)


@statistics.register("l2_gate")
def l2_gate(context: Context) -> dict[str, Tensor]:
    """Factors learned under an L2 penalty: the larger, the harder they are drawn to 0, and so it takes longer."""
    return learn_gates(context, lambda gate: gate, way=L2_WAY)
