"""The Optuna study: its storage, its parameters, its samplers.

A layer's ratio is the study's `keep/<layer>` = 1 - ratio on a logarithmic scale, so that 0.99 and 0.995 are as far
apart as 0.5 and 0.75; a group's is `keep/<pattern>`. Everywhere else they are `ratio/<layer>` and `group/<pattern>`.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from tune_prune.common.errors import UserError
from tune_prune.hpo.groups import GroupedRatio
from tune_prune.hpo.parameters import Choice, Parameter, Range
from tune_prune.hpo.storage import describe_storage
from tune_prune.results.constraints import NO_CONSTRAINTS, Constraints

STUDY_NAME = "tune_prune"
RATIOS = ("ratio/", "group/")
"""How the names of parameters begin that are ratios, of a layer or of a group."""

RATIO_DIGITS = 5
"""A ratio is rounded to this many decimals: exact in a .conf, and finer than one weight of most layers."""

Params = Mapping[str, object]


def distributions(parameters: Mapping[str, Parameter]) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every knob that is not fixed."""
    found: dict[str, BaseDistribution] = {}
    for name, domain in parameters.items():
        if isinstance(domain, Choice):
            found[name] = CategoricalDistribution(domain.options)
        elif isinstance(domain, Range) and name.startswith(RATIOS):
            found[_keep(name)] = FloatDistribution(1 - domain.high, 1 - domain.low, log=True)
        elif isinstance(domain, Range) and domain.whole:
            found[name] = IntDistribution(int(domain.low), int(domain.high), domain.log, int(domain.step or 1))
        elif isinstance(domain, Range):
            found[name] = FloatDistribution(domain.low, domain.high, domain.log, domain.step)
    return found


def _keep(name: str) -> str:
    return f"keep/{name.partition('/')[2]}"


def to_study_params(params: Params) -> dict[str, object]:
    """Our parameters under the study's names."""
    return {_keep(k) if k.startswith(RATIOS) else k: 1 - v if k.startswith(RATIOS) else v  # type: ignore[operator]
            for k, v in params.items()}  # fmt: skip


def from_study_params(drawn: Params, parameters: Mapping[str, Parameter]) -> dict[str, object]:
    """What the study drew, and what is fixed, under our names and in the space's order."""
    params: dict[str, object] = {}
    parts: dict[str, dict[str, float]] = {}
    for name, domain in parameters.items():
        if name.startswith(RATIOS) and isinstance(domain, Range):
            ratio = round(1 - float(drawn[_keep(name)]), RATIO_DIGITS)  # type: ignore[arg-type]
            params[name] = min(max(ratio, domain.low), domain.high)
        elif isinstance(domain, GroupedRatio):
            group = domain.group
            if group.name not in parts:  # once for all its layers
                parts[group.name] = group.ratios(float(params[group.name]))  # type: ignore[arg-type]
            params[name] = round(parts[group.name][domain.layer], RATIO_DIGITS)
        else:
            params[name] = drawn[name] if isinstance(domain, Choice | Range) else domain
    return params


class _FixedSpaceTPE(TPESampler):
    """TPE over a space that does not change, as ours: Optuna's would look for it in all trials at every draw."""

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True, seed=seed)
        self._space = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What is drawn together."""
        return dict(self._space)


def make_sampler(name: str, seed: int, space: Mapping[str, BaseDistribution]) -> BaseSampler:
    """A constrained multi-objective sampler, for trials that all have these `distributions`."""
    with warnings.catch_warnings():
        # multivariate and constant_liar are marked experimental; what they do here is tested
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return _FixedSpaceTPE(space, seed)
            case "nsga2":
                return NSGAIISampler(population_size=20, seed=seed)
            case "gp":
                return GPSampler(seed=seed)
            case "random":
                return RandomSampler(seed=seed)
    raise ValueError(f"unknown sampler {name!r}")


def log_factor(compression: float) -> float:
    """The study's first objective: log10 of the factor, in which 25x to 50x is as far as 50x to 100x; at most 6."""
    return -math.log10(max(1 - compression, 1e-6))


def directions(limits: Constraints) -> list[StudyDirection]:
    """Which way each objective goes, in the order of `Limits.values`."""
    return [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (1 + len(limits.objectives))]


def open_study(
    storage: RDBStorage, name: str, run_dir: Path, fingerprint: str, limits: Constraints = NO_CONSTRAINTS
) -> optuna.Study:
    """Create or go on with a run's study: log10(factor) to be maximised, validation error and costs to be minimised.

    `fingerprint` says what is searched; a study that was begun for another search, and one that is lost, is a
    `UserError`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=storage, study_name=name, directions=directions(limits), load_if_exists=True)
    known = study.user_attrs.get("fingerprint")
    if known is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # names for dashboards, no more
            study.set_metric_names(["log10_factor", "val_error", *limits.objectives])
        study.set_user_attr("fingerprint", fingerprint)
    elif known != fingerprint:
        raise UserError(f"{run_dir}: was begun for another model, data, space or goal; use a new --run-dir")
    if any((run_dir / "results").glob("*.json")) and not study.get_trials(deepcopy=False):
        where = describe_storage(storage)
        lost = f"{where}: the study has no trials, and {run_dir / 'results'} has; the study was lost"
        raise UserError(f"{lost}: put it back, or begin again with a new --run-dir")
    return study


def load_or_store_initial(study: optuna.Study, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a study was begun with (`guesses.py`); measured where it has nothing yet, and kept in it."""
    if "first" not in study.user_attrs:
        study.set_user_attr("first", measure())
    found: dict[str, Any] = study.user_attrs["first"]
    return found
