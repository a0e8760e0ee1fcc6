"""The constraints and objectives of a search: metric and compression always, further costs where a space names them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tune_prune.results import pareto
from tune_prune.tasks.metrics import ERROR, Metric

COSTS = {
    "macs": "share of the dense model's multiply-adds that is left",
    "bytes": "size of the model as a sparse file, in bytes",
    "latency": "time for one sample as a share of the dense model's, measured on the compacted model",
}
"""The costs of a point besides its metric; less is better. Latency is measured only if a search uses it."""


@dataclass(frozen=True)
class Constraints:
    """The limits that a feasible point keeps, and the objectives besides compression and metric.

    `limit` is the worst feasible value of the `metric` on validation data; `at_most` are the highest feasible costs, by
    name; `objectives` are costs to be minimised besides the metric. Objectives are never summed into one another.
    `ideal` is the value from which on a point dominates all of the hypervolume that its compression allows.
    """

    limit: float
    at_most: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    metric: Metric = ERROR
    ideal: float = 0.0

    @property
    def latency(self) -> bool:
        """Whether latency is limited or an objective, so that it has to be measured."""
        return "latency" in self.at_most or "latency" in self.objectives

    @property
    def max_cost(self) -> float:
        """The limit as a cost (`Metric.cost`)."""
        return self.metric.cost(self.limit)

    def within(self, costs: Mapping[str, float]) -> bool:
        """Whether these costs keep all limits on costs."""
        return all(costs[name] <= limit for name, limit in self.at_most.items())

    def feasible(self, value: float, costs: Mapping[str, float]) -> bool:
        """Whether this value of the metric and these costs keep all limits."""
        return self.metric.cost(value) <= self.max_cost and self.within(costs)

    def violations(self, value: float, costs: Mapping[str, float]) -> dict[str, float]:
        """The excess over each limit, negative where it is kept: of the metric in its unit, of costs as shares."""
        over = {f"{name} / limit - 1": costs[name] / limit - 1 for name, limit in self.at_most.items()}
        name = f"limit - {self.metric.val}" if self.metric.better == "higher" else f"{self.metric.val} - limit"
        return {name: self.metric.cost(value) - self.max_cost} | over

    def values(self, maximised: float, value: float, costs: Mapping[str, float]) -> list[float]:
        """The values of a point's objectives: the maximised one; to minimise the metric as a cost, and other costs."""
        return [maximised, self.metric.cost(value), *(costs[name] for name in self.objectives)]

    def hypervolume(self, points: Sequence[pareto.Point]) -> float:
        """The share in [0, 1] of the area from the limit to `ideal`, up to 1000x, that points dominate.

        Points are (compression, metric as a cost). 0 where there is no such area.
        """
        min_cost = self.metric.cost(self.ideal)
        return pareto.hypervolume(points, self.max_cost, min_error=min_cost) if self.has_area else 0.0

    @property
    def has_area(self) -> bool:
        """Whether there is an area between the limit and `ideal`; not where one of them is NaN or infinite."""
        return 0 < self.max_cost - self.metric.cost(self.ideal) < math.inf


def make_constraints(
    metric: Metric,
    dense: float,
    tradeoff: float,
    at_most: Mapping[str, float] | None = None,
    objectives: Sequence[str] = (),
) -> Constraints:
    """The constraints of a search whose dense model has this metric; `tradeoff` is in the metric's unit."""
    ideal = find_ideal(metric, dense, tradeoff)
    return Constraints(metric.limit(dense, tradeoff), at_most or {}, tuple(objectives), metric, ideal)


def find_ideal(metric: Metric, dense: float, tradeoff: float) -> float:
    """Where the hypervolume's rectangle ends: at an error of 0; of any other metric the best value is not known, and it
    ends one tradeoff better than the dense model."""
    return 0.0 if metric == ERROR else metric.value(metric.cost(dense) - tradeoff)


NO_CONSTRAINTS = Constraints(math.inf)
"""No limits, and no objectives but compression and metric."""
