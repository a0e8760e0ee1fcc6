"""What a point must keep, and what is better about it: error and compression always, costs where they are asked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

COSTS = {
    "macs": "share of the dense model's multiply-adds that is left",
    "bytes": "size of the model as a sparse file, in bytes",
    "latency": "time for one sample as a share of the dense model's, without what nothing computes or reads",
}
"""What is counted of every point besides its compression; less is better. Latency only where it is asked for."""


@dataclass(frozen=True)
class Constraints:
    """The highest feasible validation error in percent, the highest costs by name, and the costs that are objectives.

    An objective is minimised beside error, and compression maximised: none of them is summed into another.
    """

    error: float
    at_most: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()

    @property
    def latency(self) -> bool:
        """Whether latency is asked for, which has to be measured."""
        return "latency" in self.at_most or "latency" in self.objectives

    def within(self, costs: Mapping[str, float]) -> bool:
        """Whether a point with these costs keeps all limits on them."""
        return all(costs[name] <= limit for name, limit in self.at_most.items())

    def feasible(self, error: float, costs: Mapping[str, float]) -> bool:
        """Whether a point with this error, in percent, and these costs keeps everything."""
        return error <= self.error and self.within(costs)

    def violations(self, error: float, costs: Mapping[str, float]) -> dict[str, float]:
        """By how much each limit is overstepped, negative where it is kept: points of error, shares of costs."""
        over = {f"{name} / limit - 1": costs[name] / limit - 1 for name, limit in self.at_most.items()}
        return {"val_error - limit": error - self.error} | over

    def values(self, first: float, error: float, costs: Mapping[str, float]) -> list[float]:
        """A point's objectives: what is maximised `first`, its error, and its costs."""
        return [first, error, *(costs[name] for name in self.objectives)]


NO_CONSTRAINTS = Constraints(math.inf)
"""Compression and error alone count."""
