"""The facts of a run: what was searched, from where, under which limit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tune_prune.results.constraints import Constraints


@dataclass(frozen=True)
class RunInfo:
    """What summary.json says about the run itself: `budget` in trials, `time_budget` in seconds, None where unlimited.

    `acc_tradeoff` in percentage points, `dense_val_error` in percent; `shapes` of the layers' weights in the
    model's order; `at_most` are limits on costs, `objectives` the costs that are minimised (`limits.py`); `command` is
    how the run was started.
    """

    space: str
    model: str
    data: str
    seed: int
    budget: int | None
    concurrency: int
    device: str
    sampler: str
    acc_tradeoff: float
    dense_val_error: float
    shapes: Mapping[str, tuple[int, ...]]
    command: str
    versions: dict[str, str]
    time_budget: float | None = None
    at_most: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The layers, in the model's order."""
        return tuple(self.shapes)

    @property
    def totals(self) -> dict[str, int]:
        """The weights of each layer."""
        return {label: math.prod(shape) for label, shape in self.shapes.items()}

    @property
    def limit(self) -> float:
        """The highest validation error, in percent, that keeps the tradeoff; 0.86 and 0.5 make it 1.36 exactly."""
        return round_up(self.dense_val_error + self.acc_tradeoff)

    @property
    def limits(self) -> Constraints:
        """What a point must keep, and what is better about it."""
        return Constraints(self.limit, self.at_most, self.objectives)


def round_up(value: float) -> float:
    """The next whole billionth, beyond which a value is noise: 0.86 + 0.5 is 1.3599999999999999, a hair too little.

    Up, since what is as great as a limit must stay within it: a third of a percent is no whole number of billionths.
    """
    return math.ceil(value * 1e9 - 1e-3) / 1e9
