"""The constraints and objectives of a search: metric and compression always, others where a space names them.

Those are limits on costs and on further metrics, by the names of their columns: `macs`, `val_f1`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_prune.results import pareto
from tune_prune.tasks.metrics import ERROR, Metric

COSTS = {
    "macs": "share of the dense model's multiply-adds that is left",
    "bytes": "size of the model as a sparse file, in bytes",
    "latency": "time of a batch as a share of the dense model's, predicted from a table of measured times",
    "latency_ms": "the same time in milliseconds",
}
"""The costs of a point besides its metric; less is better. Latency is predicted only if a search uses it."""

LATENCY = ("latency", "latency_ms")
"""The costs for which a latency table is needed."""

MEASURED_LATENCY = "latency_measured"
"""The column of the front's latency as it was measured once the search had ended, a share of the dense model's."""


def find_speed(costs: Mapping[str, Any]) -> float:
    """How many times as fast as the dense model a point is: measured, where it was, else predicted; 0 if unknown."""
    share = next((costs[name] for name in (MEASURED_LATENCY, "latency") if costs.get(name)), math.nan)
    return 1 / share if math.isfinite(share) else 0.0


WORST = 1e12
"""The highest excess over a limit: a sampler adds them up, and takes no NaN."""


def _exceed(value: float, limit: float) -> float:
    excess = value / limit - 1 if limit > 0 else (value - limit) / (abs(limit) or 1.0)
    return WORST if math.isnan(excess) else max(-WORST, min(excess, WORST))


def _fall_below(value: float, limit: float) -> float:
    return WORST if math.isnan(value) else -_exceed(value, limit)


@dataclass(frozen=True)
class Constraints:
    """The limits that a feasible point keeps, and the objectives besides compression and metric.

    `limit` is the worst feasible value of the `metric` on validation data; `at_most` are the highest feasible costs and
    values of further metrics, `at_least` the lowest, by name; `objectives` are costs to be minimised besides the
    metric. Objectives are never summed into one another. `ideal` is the value from which on a point dominates all of
    the hypervolume that its compression allows. `dense` are the dense model's values of further metrics.
    """

    limit: float
    at_most: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    metric: Metric = ERROR
    ideal: float = 0.0
    at_least: Mapping[str, float] = field(default_factory=dict)
    dense: Mapping[str, float] = field(default_factory=dict)

    @property
    def latency(self) -> bool:
        """Whether latency is limited or an objective, so that it has to be predicted."""
        return any(name in self.at_most or name in self.objectives for name in LATENCY)

    @property
    def max_cost(self) -> float:
        """The limit as a cost (`Metric.cost`)."""
        return self.metric.cost(self.limit)

    def within(self, costs: Mapping[str, float]) -> bool:
        """Whether these costs and further metrics keep all limits on them; a NaN keeps none."""
        return all(self.keeps(name, costs[name]) for name in (*self.at_most, *self.at_least))

    def of_further_metrics(self) -> list["Constraints"]:
        """The limits on further metrics one by one, each as if a search were judged by that metric."""
        limits = [(name, limit, "lower") for name, limit in self.at_most.items()]
        limits += [(name, limit, "higher") for name, limit in self.at_least.items()]
        return [
            Constraints(limit, metric=Metric(name.removeprefix("val_"), "lower" if better == "lower" else "higher"))
            for name, limit, better in limits
            if name not in COSTS
        ]

    def after_refinement(self, costs: Mapping[str, float], share: float) -> dict[str, float]:
        """Costs as they are expected after refinement, which leaves a `share` of a metric's distance from the dense.

        Only those further metrics change that break a limit.
        """
        dense = {name: value for name, value in self.dense.items() if not self.keeps(name, costs[name])}
        return {**costs, **{name: value + share * (costs[name] - value) for name, value in dense.items()}}

    def keeps(self, name: str, value: float) -> bool:
        """Whether a cost or further metric of this value keeps the limits on it; a NaN keeps none."""
        return value <= self.at_most.get(name, math.inf) and value >= self.at_least.get(name, -math.inf)

    def excesses(self, costs: Mapping[str, float]) -> dict[str, float]:
        """By what share of it each limit on costs and further metrics is exceeded, negative where it is kept.

        A limit of 0 has no shares: it is exceeded by the difference itself. A NaN exceeds any limit by `WORST`.
        """
        above = {f"{name} / limit - 1": _exceed(costs[name], limit) for name, limit in self.at_most.items()}
        below = {f"1 - {name} / limit": _fall_below(costs[name], limit) for name, limit in self.at_least.items()}
        return above | below

    def describe_limits(self) -> str:
        """The limits on costs and further metrics in words: `macs of 0.5 at most and val_f1 of 0.9 at least`."""
        sides = {"most": self.at_most, "least": self.at_least}
        found = []
        for side, limits in sides.items():
            names = " and ".join(f"{name} of {limit:g}" for name, limit in limits.items())
            found += [f"{names} at {side}"] if names else []
        return " and ".join(found)

    def feasible(self, value: float, costs: Mapping[str, float]) -> bool:
        """Whether this value of the metric and these costs keep all limits."""
        return self.metric.cost(value) <= self.max_cost and self.within(costs)

    def violations(self, value: float, costs: Mapping[str, float]) -> dict[str, float]:
        """The excess over each limit, negative where it is kept: of the metric in its unit, of others as shares."""
        name = f"limit - {self.metric.val}" if self.metric.better == "higher" else f"{self.metric.val} - limit"
        return {name: self.metric.cost(value) - self.max_cost} | self.excesses(costs)

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
    at_least: Mapping[str, float] | None = None,
    dense_further: Mapping[str, float] | None = None,
) -> Constraints:
    """The constraints of a search whose dense model has this metric; `tradeoff` is in the metric's unit.

    `dense_further` are the dense model's values of further metrics, by column.
    """
    ideal, limit = find_ideal(metric, dense, tradeoff), metric.limit(dense, tradeoff)
    return Constraints(limit, at_most or {}, tuple(objectives), metric, ideal, at_least or {}, dense_further or {})


def find_ideal(metric: Metric, dense: float, tradeoff: float) -> float:
    """Where the hypervolume's rectangle ends: at an error of 0; of any other metric the best value is not known, and it
    ends one tradeoff better than the dense model."""
    return 0.0 if metric == ERROR else metric.value(metric.cost(dense) - tradeoff)


NO_CONSTRAINTS = Constraints(math.inf)
"""No limits, and no objectives but compression and metric."""
