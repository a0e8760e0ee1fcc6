"""Schedules: progress in (0, 1] -> the share of the final ratio that is removed by then."""

from collections.abc import Callable

from tune_prune.registry import Registry

Schedule = Callable[[float], float]
schedules: Registry[Schedule] = Registry("schedule")


@schedules.register("linear")
def linear(progress: float) -> float:
    """Equal steps, as torch7-pruner's `-iPrunning`."""
    return progress


@schedules.register("cubic")
def cubic(progress: float) -> float:
    """Large steps first, small ones as the network gets thin (Zhu and Gupta 2017, eq. 1)."""
    return 1 - (1 - progress) ** 3


@schedules.register("one-shot")
def one_shot(progress: float) -> float:
    """All at once; the rounds after the first only train on."""
    return 1.0
