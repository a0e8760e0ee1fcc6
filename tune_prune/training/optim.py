"""The hyperparameters of a training, and SGD with Nesterov momentum that computes what `torch.optim.SGD` does.

Why it is written here: the first step of any optimizer of torch imports torch's compiler, which takes a second of
processor time in every worker, as much as 400 steps of a small network. Here nothing is imported, and each operation is
one call for all parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tune_prune.training.lr_schedules import lr_schedules


@dataclass(frozen=True)
class Recipe:
    """How to train: `steps` of SGD with Nesterov momentum, the learning rate falling by `lr_schedule`.

    `warmup` is the share of the steps in which the learning rate rises from 0. `distill` in [0, 1] is the teacher's
    share of the loss, at `temperature` (Hinton et al. 2015, sec. 2). `weight_decay` is the strength of an L2 penalty on
    all parameters, `l1` that of an L1 penalty on all but vectors (biases, normalisation). A step takes the mean
    gradient of `accumulate` batches, scaled down where its norm over all parameters is above `clip` (0: never).
    `label_smoothing` is the share of the cross-entropy that is spread over all classes (Szegedy et al. 2016, sec. 7).
    An optimizer of the user's has its own `momentum` and `weight_decay`.
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
    clip: float = 0.0
    accumulate: int = 1
    label_smoothing: float = 0.0
    lr_schedule: str = "cosine"

    def steps_in(self, batches: int) -> int:
        """Counts the steps that so many batches make: at least one."""
        return max(1, batches // self.accumulate)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step counted from 0."""
        rise = self.warmup * self.steps
        if step < rise:
            return self.lr * (step + 1) / (rise + 1)
        return self.lr * lr_schedules[self.lr_schedule](step - rise, max(1.0, self.steps - rise))


class Optimizer(Protocol):
    """What the loops need of an optimizer; `parameters` are those that it updates."""

    parameters: Sequence[Tensor]

    def step(self, lr: float | Tensor) -> None:
        """Updates all parameters that have a gradient, and clears the gradients."""
        ...

    def save_state(self) -> tuple[dict[str, Tensor], object]:
        """The state that a resumed training needs: tensors by name, and the rest as JSON has it."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], rest: object) -> None:
        """Takes over what `save_state` has returned; a KeyError where a tensor is missing."""
        ...


class SGD:
    """Updates the parameters that need a gradient; `velocities` holds a momentum buffer for each, zero at first.

    `weight_decay` is the strength of an L2 penalty on all of them. Source: Sutskever et al. 2013, in the form that
    torch documents (dampening 0).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float) -> None:
        self.parameters: Sequence[Tensor] = [parameter for parameter in parameters if parameter.requires_grad]
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._momentum, self._weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        """Updates all parameters that have a gradient, and clears the gradients.

        `lr` is a tensor on the parameters' device where the step is recorded: its value may change between replays.
        """
        updated = [(p, v, p.grad) for p, v in zip(self.parameters, self.velocities, strict=True) if p.grad is not None]
        # an embedding with sparse=True has a gradient of the rows that were looked up
        updated = [(p, v, grad.to_dense() if grad.is_sparse else grad) for p, v, grad in updated]
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

    def save_state(self) -> tuple[dict[str, Tensor], object]:
        """The momentum buffers by name."""
        return {f"momentum/{i}": velocity for i, velocity in enumerate(self.velocities)}, None

    def load_state(self, tensors: Mapping[str, Tensor], rest: object) -> None:
        """Takes over momentum buffers; a KeyError where one is missing."""
        saved = [tensors[f"momentum/{i}"] for i in range(len(self.velocities))]
        for velocity, value in zip(self.velocities, saved, strict=True):
            velocity.copy_(value)
