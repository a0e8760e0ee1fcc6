"""The facts of a run: its space, model and data, its dense model's error, and its constraints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tune_prune.pruning.plan import Plan
from tune_prune.results.constraints import Constraints
from tune_prune.tasks.metrics import ERROR
from tune_prune.tasks.settings import DEFAULT, TaskSettings

if TYPE_CHECKING:
    from tune_prune.pruning.coverage import Coverage  # which imports torch; tables and pictures do without it


@dataclass(frozen=True)
class RunInfo:
    """The facts of a run as summary.json has them.

    `budget` is in trials, `time_budget` in seconds; None means unlimited. `acc_tradeoff` is in percentage points,
    `dense_metric` in percent. `shapes` are of the layers' weights, in the model's order; `coverage`
    is the share of the model that they make up. `at_most` are limits on costs, `objectives` the costs that are
    minimised (`constraints.py`). `command` is the command line that started the run; `cached_sample` is the number of
    training images on which cached statistics were measured. `weights` is the file of the dense weights, absolute, None
    where they come with the model; `weights_hash` is of its tensors. `settings` say what else the task is.
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

    @property
    def labels(self) -> tuple[str, ...]:
        """The layers' labels, in the model's order."""
        return tuple(self.shapes)

    @property
    def totals(self) -> dict[str, int]:
        """The number of weights of each layer, by label."""
        return {label: math.prod(shape) for label, shape in self.shapes.items()}

    @property
    def limit(self) -> float:
        """The highest feasible validation error, in percent; of a dense error of 0.86 and a tradeoff of 0.5 1.36."""
        return ERROR.limit(self.dense_metric, self.acc_tradeoff)

    @property
    def limits(self) -> Constraints:
        """The constraints and the objectives of the run."""
        return Constraints(self.limit, self.at_most, self.objectives)
