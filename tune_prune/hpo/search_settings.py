"""What the scheduler of a search goes by: the budget, the limits, and how trials are spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tune_prune.hpo import refinement
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.gradual_pruning import GradualTrials
from tune_prune.hpo.phases import Features, Refinement
from tune_prune.pruning import masks
from tune_prune.pruning.channels.counting import ChannelCounts
from tune_prune.results.constraints import Constraints
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import ERROR, Metric

InitialPoint = Mapping[str, object]
"""Parameters of a trial under the space's names; what it leaves out is drawn."""


@dataclass(frozen=True)
class SearchSettings:
    """What a search is for: its budget, the constraints on points, and how it spends its trials.

    `initial_points` are tried first, then `levels`, ascending in compression, as far as they can keep the limit.
    `dense_metric` is the dense model's metric, `totals` are the weights of each layer, `refinement_seconds` the
    expected duration of a refinement, `samples` the number of validation images. `gradual` makes the rounds of gradual
    pruning, where there are any. A search ends once more than the
    share `max_failures` of its trials has failed. `channels` are the groups of channels, where these are pruned.
    """

    budget: Budget
    dense_metric: float
    limits: Constraints
    refine: Refinement
    initial_points: Sequence[InitialPoint] = ()
    levels: Sequence[InitialPoint] = ()
    features: Features = field(default_factory=Features)
    totals: Mapping[str, int] = field(default_factory=dict)
    refinement_seconds: float = 0.0
    samples: int = 0
    max_failures: float = 1.0
    channels: ChannelCounts | None = None
    gradual: GradualTrials | None = None

    @property
    def metric(self) -> Metric:
        """What models are judged by."""
        return self.limits.metric

    @property
    def standard_error(self) -> float:
        """That of the dense model's error, in percentage points; 0 for other metrics, of which it is not known."""
        known = self.metric == ERROR and self.samples > 0
        return refinement.standard_error(self.dense_metric, self.samples) if known else 0.0

    def compression(self, params: TrialParams) -> float:
        """The compression of the whole model at which a trial with these parameters ends."""
        if self.channels is not None:
            plan = params.to_plan()
            return self.channels.compression(plan.ratios, plan.multiple_of, plan.min_width)
        removed = sum(masks.count_removed(ratio, self.totals[label]) for label, ratio in params.ratios.items())
        return removed / sum(self.totals.values())
