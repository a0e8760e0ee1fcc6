"""The hyperparameters of a training, and SGD with Nesterov momentum that computes what `torch.optim.SGD` does.

Why it is written here: the first step of any optimizer of torch imports torch's compiler, which takes a second of
processor time in every worker, as much as 400 steps of a small network. Here nothing is imported, and each operation is
one call for all parameters.
"""

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How to train: `steps` of SGD with Nesterov momentum, the learning rate falling to 0 along a cosine.

    `warmup` is the share of the steps in which the learning rate rises from 0. `distill` in [0, 1] is the teacher's
    share of the loss, at `temperature` (Hinton et al. 2015, sec. 2). `weight_decay` is the strength of an L2 penalty on
    all parameters, `l1` that of an L1 penalty on all but vectors (biases, normalisation).
    """

    steps: int
    lr: float
    _: KW_ONLY  # so many numbers in a row would be mistaken for one another
    momentum: float = 0.9
    weight_decay: float = 0.0
    l1: float = 0.0
    batch_size: int = 128
    warmup: float = 0.0
    distill: float = 0.0
    temperature: float = 4.0
    augment: bool = False

    def lr_at(self, step: int) -> float:
        """The learning rate of a step counted from 0."""
        rise = self.warmup * self.steps
        if step < rise:
            return self.lr * (step + 1) / (rise + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, self.steps - rise)))


class SGD:
    """Updates the parameters that need a gradient; `velocities` holds a momentum buffer for each, zero at first.

    `weight_decay` is the strength of an L2 penalty on all of them. Source: Sutskever et al. 2013, in the form that
    torch documents (dampening 0).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._momentum, self._weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        """Updates all parameters that have a gradient, and clears the gradients.

        `lr` is a tensor on the parameters' device where the step is recorded: its value may change between replays.
        """
        updated = [(p, v, p.grad) for p, v in zip(self.parameters, self.velocities, strict=True) if p.grad is not None]
        weights: list[Tensor] = [p.data for p, _, _ in updated]
        velocities, gradients = [v for _, v, _ in updated], [g for _, _, g in updated]
        if not updated:
            return
        if self._weight_decay:
            torch._foreach_add_(gradients, weights, alpha=self._weight_decay)
        if self._momentum:
            torch._foreach_mul_(velocities, self._momentum)
            torch._foreach_add_(velocities, gradients)
            torch._foreach_add_(gradients, velocities, alpha=self._momentum)
        if isinstance(lr, Tensor):
            torch._foreach_mul_(gradients, -lr)
            torch._foreach_add_(weights, gradients)
        else:
            torch._foreach_add_(weights, gradients, alpha=-lr)
        for parameter, _, _ in updated:
            parameter.grad = None
