"""Which of a search's parameters decide how well its trials do: Optuna's PED-ANOVA over what trials.csv says."""

import math
import warnings

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial
from pandas import DataFrame, api

MIN_TRIALS = 20
"""Complete trials below which nothing is said."""

MAX_NAMED = 12
"""Parameters that are named; the rest matter less."""


def parameter_importance(trials: DataFrame, members: DataFrame) -> dict[str, float]:
    """The share of each parameter that was drawn in how far a trial's last point lies above the front.

    `trials` as trials.csv, `members` as pareto.csv. Empty where too few trials are complete, or nothing differs.
    """
    names = list(map(str, trials.columns))
    columns = names[names.index("state") + 1 : names.index("compression")]
    done = trials[(trials.state == "complete") & (trials.kind == "explore") & trials.val_error.notna()]
    drawn = {
        name: _distribution(done, name) for name in columns if done[name].notna().all() and done[name].nunique() > 1
    }
    if len(done) < MIN_TRIALS or len(drawn) < 2 or not len(members):
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for _, row in done.iterrows():
        value = _above(float(row.compression), float(row.val_error), members)
        params = {name: _value(row[name], one) for name, one in drawn.items()}
        study.add_trial(create_trial(params=params, distributions=drawn, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the evaluator is experimental, and what it thinks of quantiles
        found = optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    shares = dict(list(found.items())[:MAX_NAMED])
    return shares if all(map(math.isfinite, shares.values())) and sum(shares.values()) > 0 else {}


def _above(compression: float, error: float, members: DataFrame) -> float:
    """How far above the front a point is, in percent: above the lowest error of a member as compressed as it."""
    there = members[members.compression >= compression].val_error
    return error - float(there.min() if len(there) else members.val_error.max())


def _distribution(done: DataFrame, name: str) -> BaseDistribution:
    column = done[name]
    if api.types.is_numeric_dtype(column) and not api.types.is_bool_dtype(column):
        return FloatDistribution(float(column.min()), float(column.max()))
    return CategoricalDistribution(tuple(sorted(map(str, column.unique()))))


def _value(value: object, distribution: BaseDistribution) -> object:
    return str(value) if isinstance(distribution, CategoricalDistribution) else float(value)  # type: ignore[arg-type]
