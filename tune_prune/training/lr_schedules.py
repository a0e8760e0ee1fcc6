"""Learning-rate schedules by name: the share of the highest learning rate that a step has."""

import math
from collections.abc import Callable

from tune_prune.common.registry import Registry

LearningRateSchedule = Callable[[float, float], float]
"""Maps a step, counted from 0 after the warm-up, and the number of steps to a share in [0, 1]."""

lr_schedules: Registry[LearningRateSchedule] = Registry("learning-rate schedule")


@lr_schedules.register("cosine")
def cosine(step: float, steps: float) -> float:
    """Falls to 0 along half a cosine (Loshchilov and Hutter 2017, eq. 5)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


@lr_schedules.register("linear")
def linear(step: float, steps: float) -> float:
    """Falls to 0 in equal steps."""
    return 1 - step / steps


@lr_schedules.register("constant")
def constant(step: float, steps: float) -> float:
    """Stays."""
    return 1.0


@lr_schedules.register("step")
def step(step: float, steps: float) -> float:
    """Falls to a tenth after half of the steps, and again after three quarters (He et al. 2016, sec. 4.2)."""
    return math.pow(0.1, (step >= steps / 2) + (step >= 0.75 * steps))
