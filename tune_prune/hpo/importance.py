"""Measures which parameters decide how good the trials of a search are, by Optuna's PED-ANOVA over trials.csv."""

import math
import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial
from pandas import DataFrame, api

from tune_prune.results.pareto import Point
from tune_prune.tasks.metrics import ERROR, Metric

MIN_TRIALS = 20
"""With fewer complete trials, no importance is computed."""

MAX_NAMED = 12
"""How many parameters are named, the most important ones."""


def parameter_importance(trials: DataFrame, members: DataFrame, metric: Metric = ERROR) -> dict[str, float]:
    """The importance of each drawn parameter, most important first.

    It is the parameter's share in how far from the front the last points of trials lie. `trials` has the columns of
    trials.csv, `members` those of pareto.csv. Empty where too few trials are complete, or fewer than two parameters
    vary.
    """
    names = list(map(str, trials.columns))
    columns = names[names.index("state") + 1 : names.index("compression")]
    done = trials[(trials.state == "complete") & (trials.kind == "explore") & trials[metric.val].notna()]
    drawn = {
        name: _distribution(done, name) for name in columns if done[name].notna().all() and done[name].nunique() > 1
    }
    if len(done) < MIN_TRIALS or len(drawn) < 2 or not len(members):
        return {}
    # not on import: it imports scikit-learn, which takes a second, and few calls get here
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, cost = optuna.create_study(), metric.cost
    front = [(float(row.compression), cost(float(row[metric.val]))) for _, row in members.iterrows()]
    for _, row in done.iterrows():
        value = _distance_to_front(float(row.compression), cost(float(row[metric.val])), front)
        params = {name: _value(row[name], one) for name, one in drawn.items()}
        study.add_trial(create_trial(params=params, distributions=drawn, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluator is experimental, and warns of its quantiles
        importances = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    shares = dict(list(importances.items())[:MAX_NAMED])
    return shares if all(map(math.isfinite, shares.values())) and sum(shares.values()) > 0 else {}


def _distance_to_front(compression: float, cost: float, front: Sequence[Point]) -> float:
    """How far a metric, as a cost, lies above the front: above the lowest of points that are as compressed or more.

    `front` holds (compression, metric as a cost). A point that is more compressed than all of it is compared with the
    highest.
    """
    compressed = [theirs for reached, theirs in front if reached >= compression]
    return cost - min(compressed, default=max(theirs for _, theirs in front))


def _distribution(done: DataFrame, name: str) -> BaseDistribution:
    """The distribution of a column: from its lowest to its highest number, or the texts that it holds."""
    column = done[name]
    if api.types.is_numeric_dtype(column) and not api.types.is_bool_dtype(column):
        return FloatDistribution(float(column.min()), float(column.max()))
    return CategoricalDistribution(tuple(sorted(map(str, column.unique()))))


def _value(value: object, distribution: BaseDistribution) -> object:
    """A cell of trials.csv as its distribution takes it."""
    return str(value) if isinstance(distribution, CategoricalDistribution) else float(value)  # type: ignore[arg-type]
