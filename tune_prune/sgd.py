"""Stochastic gradient descent with Nesterov's momentum, as `torch.optim.SGD` computes it.

The first step of any optimizer of torch imports its compiler: a second of processor time in every worker, as much as
400 steps of a small network. Here all parameters are stepped by one call an operation, and nothing is imported.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class SGD:
    """Steps the parameters that need a gradient; `velocities` are theirs, in their order, and zero at first.

    `weight_decay` is the strength of an L2 penalty on all of them. Source: Sutskever et al. 2013, in the form that
    torch documents (dampening 0).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._momentum, self._weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        """One step along the gradients, which are used up; a parameter that has none stays as it is.

        A rate that is a tensor, on the parameters' device, may change where a recorded step cannot.
        """
        stepped = [(p, v, p.grad) for p, v in zip(self.parameters, self.velocities, strict=True) if p.grad is not None]
        weights: list[Tensor] = [p.data for p, _, _ in stepped]
        velocities, gradients = [v for _, v, _ in stepped], [g for _, _, g in stepped]
        if not stepped:
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
        for parameter, _, _ in stepped:
            parameter.grad = None
