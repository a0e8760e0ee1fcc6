"""How to train: the numbers of a training, and its learning rates."""

import math
from dataclasses import KW_ONLY, dataclass


@dataclass(frozen=True)
class Recipe:
    """How to train: `steps` of SGD with Nesterov momentum, the learning rate falling to 0 along a cosine.

    `distill` in [0, 1] is the teacher's share of the loss, at `temperature` (Hinton et al. 2015, sec. 2);
    `warmup` the share of the steps in which the learning rate rises from 0. `weight_decay` is the strength of an L2
    penalty on all parameters, `l1` that of an L1 penalty on all but vectors (biases, normalisation).
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
