"""The facts of a run: its space, model and data, its dense model's metric, and its constraints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tune_prune.pruning.plan import Plan
from tune_prune.results.constraints import Constraints, make_constraints
from tune_prune.tasks.metrics import ERROR, Metric
from tune_prune.tasks.settings import DEFAULT, TaskSettings

if TYPE_CHECKING:
    from tune_prune.pruning.channels.counting import ChannelCounts
    from tune_prune.pruning.coverage import Coverage  # which imports torch; tables and pictures do without it


@dataclass(frozen=True)
class RunInfo:
    """The facts of a run as summary.json has them.

    `budget` is in trials, `time_budget` in seconds; None means unlimited. `acc_tradeoff` is in the unit of the
    `metric`, of which `dense_metric` is the dense model's value on validation data. `shapes` are of the layers'
    weights, in the model's order; `coverage` is the share of the model that they make up. `at_most` are limits on
    costs and further metrics, as `at_least` is, `objectives` the costs that are minimised (`constraints.py`);
    `dense_further` are the dense model's further metrics on validation data, by column. `command` is the command line
    that started the run; `cached_sample` is the number of training images on which cached statistics were measured.
    `weights` is the file of the dense weights, absolute, None where they come with the model; `weights_hash` is of its
    tensors.
    `settings` say what else the task is; `samples` is the number of validation images. `channels` are the groups of
    channels, where channels are pruned.
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
    dense_metric: float
    shapes: Mapping[str, tuple[int, ...]]
    coverage: "Coverage"
    command: str
    versions: dict[str, str]
    time_budget: float | None = None
    at_most: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    cached_sample: int = Plan.sample
    weights: str | None = None
    weights_hash: str | None = None
    settings: TaskSettings = DEFAULT
    metric: Metric = ERROR
    at_least: Mapping[str, float] = field(default_factory=dict)
    dense_further: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    channels: "ChannelCounts | None" = None

    @property
    def ratio_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of what has a ratio: all layers, or the first of each group of channels or blocks."""
        if self.channels is None:
            return self.shapes
        return {name: self.shapes[self.channels.first_layer(name)] for name in self.channels.names}

    @property
    def labels(self) -> tuple[str, ...]:
        """What may have a ratio: groups of blocks, the layers in the model's order, and of a mixture their weights."""
        if self.channels is None:
            return tuple(self.shapes)
        return (*self.channels.blocks, *self.shapes, *self.channels.weight_names)

    @property
    def totals(self) -> dict[str, int]:
        """The number of weights of each layer, by label."""
        return {label: math.prod(shape) for label, shape in self.shapes.items()}

    @property
    def limit(self) -> float:
        """The worst feasible validation metric; of a dense error of 0.86 % and a tradeoff of 0.5 points 1.36 %."""
        return self.limits.limit

    @property
    def limits(self) -> Constraints:
        """The constraints and the objectives of the run."""
        return make_constraints(
            self.metric, self.dense_metric, self.acc_tradeoff, self.at_most, self.objectives,
            self.at_least, self.dense_further,
        )  # fmt: skip

    def describe(self) -> list[str]:
        """The dense model and the limits in lines: its metric, its further metrics, and what compression counts."""
        dense, limit = self.metric.describe(self.dense_metric, "validation"), self.metric.format(self.limit)
        lines = [f"dense model: {dense}; limit {limit}; {sum(self.totals.values()):,} weights"]
        if self.dense_further:
            values = ", ".join(f"{name} {value:.4g}" for name, value in self.dense_further.items())
            limits = [(name, value, "at most") for name, value in self.at_most.items() if name in self.dense_further]
            limits += [(name, value, "at least") for name, value in self.at_least.items()]
            words = [f"{name} {side} {value:g}{self._note(name)}" for name, value, side in limits]
            lines.append(f"and beside it: {values}; limits: {', '.join(words) or 'none'}")
        return [*lines, self.coverage.describe()]

    def _note(self, name: str) -> str:
        keeps = self.limits.keeps(name, self.dense_further[name])
        return "" if keeps else " (which the dense model itself does not keep)"
