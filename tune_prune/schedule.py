"""Schedules: a layer's final ratio and the progress in (0, 1] -> the ratio that is removed by then."""

import math
from collections.abc import Callable

from tune_prune.common.registry import Registry

Schedule = Callable[[float, float], float]
schedules: Registry[Schedule] = Registry("schedule")


@schedules.register("linear")
def linear(ratio: float, progress: float) -> float:
    """Equal steps, as torch7-pruner's `-iPrunning`."""
    return ratio * progress


@schedules.register("cubic")
def cubic(ratio: float, progress: float) -> float:
    """Large steps first, small ones as the network gets thin (Zhu and Gupta 2017, eq. 1)."""
    return ratio * (1 - (1 - progress) ** 3)


@schedules.register("geometric")
def geometric(ratio: float, progress: float) -> float:
    """The same share of what is left every time (Frankle and Carbin 2019, sec. 2)."""
    return 1 - math.pow(1 - ratio, progress)


@schedules.register("one-shot")
def one_shot(ratio: float, progress: float) -> float:
    """All at once; the rounds after the first only train on."""
    return ratio
