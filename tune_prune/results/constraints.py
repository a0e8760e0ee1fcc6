"""The constraints and objectives of a search: error and compression always, further costs where a space names them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

COSTS = {
    "macs": "share of the dense model's multiply-adds that is left",
    "bytes": "size of the model as a sparse file, in bytes",
    "latency": "time for one sample as a share of the dense model's, measured on the compacted model",
}
"""The costs of a point besides its error; less is better. Latency is measured only if a search uses it."""


@dataclass(frozen=True)
class Constraints:
    """The limits that a feasible point keeps, and the objectives besides compression and error.

    `limit` is the highest feasible validation error in percent; `at_most` are the highest feasible costs, by name;
    `objectives` are costs to be minimised besides the error. Objectives are never summed into one another.
    """

    limit: float
    at_most: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()

    @property
    def latency(self) -> bool:
        """Whether latency is limited or an objective, so that it has to be measured."""
        return "latency" in self.at_most or "latency" in self.objectives

    def within(self, costs: Mapping[str, float]) -> bool:
        """Whether these costs keep all limits on costs."""
        return all(costs[name] <= limit for name, limit in self.at_most.items())

    def feasible(self, error: float, costs: Mapping[str, float]) -> bool:
        """Whether this error, in percent, and these costs keep all limits."""
        return error <= self.limit and self.within(costs)

    def violations(self, error: float, costs: Mapping[str, float]) -> dict[str, float]:
        """The excess over each limit, negative where it is kept: of error in points, of costs as shares of it."""
        over = {f"{name} / limit - 1": costs[name] / limit - 1 for name, limit in self.at_most.items()}
        return {"val_error - limit": error - self.limit} | over

    def values(self, maximised: float, error: float, costs: Mapping[str, float]) -> list[float]:
        """The values of a point's objectives: the maximised one, the error, and the costs that are objectives."""
        return [maximised, error, *(costs[name] for name in self.objectives)]


NO_CONSTRAINTS = Constraints(math.inf)
"""No limits, and no objectives but compression and error."""
