"""The Optuna study: its storage, its parameters, its samplers.

The study holds a layer's ratio as `keep/<layer>` = 1 - ratio on a logarithmic scale, so that 0.99 and 0.995 are as far
apart as 0.5 and 0.75, and a group's ratio as `keep/<pattern>`. The space and the tables name them `ratio/<layer>` and
`group/<pattern>`; everywhere else a trial's parameters are `TrialParams`.

What Optuna keeps private (ids of trials and of the study, its storage) is used in this module alone.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from tune_prune.common.errors import UserError
from tune_prune.common.registry import Registry
from tune_prune.hpo.groups import GroupedRatio
from tune_prune.hpo.parameters import Choice, Parameter, Range
from tune_prune.hpo.storage import describe_storage, refuse_damage
from tune_prune.results.constraints import NO_CONSTRAINTS, Constraints
from tune_prune.results.trial_params import GROUP, RATIO, TrialParams
from tune_prune.tasks.fingerprints import check_unchanged
from tune_prune.tasks.metrics import Metric

STUDY_NAME = "tune_prune"
RATIOS = (RATIO, GROUP)
"""How the names of parameters begin that are ratios, of a layer or of a group."""

KEEP = "keep/"
"""How the study's names of ratios begin, of layers and of groups."""

RATIO_DIGITS = 5
"""A ratio is rounded to this many decimals: exact in a .conf, and finer than one weight of most layers."""

Columns = Mapping[str, object]
"""Parameters by name, as the space (`ratio/<layer>`) or the study (`keep/<layer>`) names them."""


def distributions(parameters: Mapping[str, Parameter]) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every parameter that is not fixed, under the study's names."""
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


def bounds_of_kept(parameters: Mapping[str, Parameter]) -> dict[str, tuple[float, float]]:
    """The least and the greatest share that is kept, of each layer or group whose ratio is searched."""
    return {
        name: (found.low, found.high)
        for name, found in distributions(parameters).items()
        if name.startswith(KEEP) and isinstance(found, FloatDistribution)
    }


def _keep(name: str) -> str:
    return f"{KEEP}{name.partition('/')[2]}"


def to_study_params(columns: Columns) -> dict[str, object]:
    """Translates parameters from the space's names to the study's: a ratio becomes the share that is kept."""
    return {_keep(k) if k.startswith(RATIOS) else k: 1 - v if k.startswith(RATIOS) else v  # type: ignore[operator]
            for k, v in columns.items()}  # fmt: skip


def from_study_params(drawn: Columns, parameters: Mapping[str, Parameter]) -> TrialParams:
    """The parameters of a trial: those that the study drew, those that groups derive, and those that are fixed."""
    columns: dict[str, object] = {}
    group_ratios: dict[str, dict[str, float]] = {}
    for name, domain in parameters.items():
        if name.startswith(RATIOS) and isinstance(domain, Range):
            ratio = round(1 - float(drawn[_keep(name)]), RATIO_DIGITS)  # type: ignore[arg-type]
            columns[name] = min(max(ratio, domain.low), domain.high)
        elif isinstance(domain, GroupedRatio):
            group = domain.group
            if group.name not in group_ratios:  # once for all its layers
                group_ratios[group.name] = group.ratios(float(columns[group.name]))  # type: ignore[arg-type]
            columns[name] = round(group_ratios[group.name][domain.layer], RATIO_DIGITS)
        else:
            columns[name] = drawn[name] if isinstance(domain, Choice | Range) else domain
    return TrialParams.from_columns(columns)


class _FixedSpaceTPE(TPESampler):
    """TPE over a search space that is known: Optuna's would derive it from all trials at every draw."""

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True, seed=seed)
        self._space = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are drawn jointly: all of them."""
        return dict(self._space)


MakeSampler = Callable[[Mapping[str, BaseDistribution], int], BaseSampler]
samplers: Registry[MakeSampler] = Registry("sampler")
"""Makes a sampler for trials that all have these distributions, from a seed."""

samplers.add("tpe", _FixedSpaceTPE)
samplers.add("nsga2", lambda space, seed: NSGAIISampler(population_size=20, seed=seed))
samplers.add("gp", lambda space, seed: GPSampler(seed=seed))
samplers.add("random", lambda space, seed: RandomSampler(seed=seed))


def make_sampler(name: str, seed: int, space: Mapping[str, BaseDistribution]) -> BaseSampler:
    """A constrained multi-objective sampler by its name in `samplers`; `space` are the trials' distributions."""
    with warnings.catch_warnings():
        # multivariate and constant_liar are marked experimental; what they do here is tested
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return samplers[name](space, seed)


def trial_id(trial: FrozenTrial) -> int:
    """The id of a trial in its storage."""
    return trial._trial_id


def add_running_trial(
    study: optuna.Study,
    params: Columns,
    distributions: Mapping[str, BaseDistribution],
    attrs: Mapping[str, Any],
) -> tuple[int, int]:
    """Adds a running trial in one transaction, so that a kill leaves all of it or nothing; its number and its id.

    `study.add_trial` would not return which trial it added.
    """
    running = create_trial(
        state=TrialState.RUNNING, params=dict(params), distributions=dict(distributions), user_attrs=dict(attrs)
    )
    id_ = study._storage.create_new_trial(study._study_id, template_trial=running)
    return study._storage.get_trial_number_from_id(id_), id_


def check_trial(trial: FrozenTrial, number: int, distributions: Mapping[str, BaseDistribution]) -> None:
    """Raises a ValueError where the trial at a number is none that `add_running_trial` and `tell` could have left."""
    if trial.number != number or trial.state == TrialState.WAITING or trial.distributions != distributions:
        raise ValueError(f"trial {number} is not one of this search")
    # this checks each value
    create_trial(state=trial.state, values=trial.values, params=trial.params, distributions=trial.distributions)


def describe_study(study: optuna.Study) -> str:
    """Names the storage of a study for a message; a study in memory by its own name."""
    storage = getattr(study._storage, "_backend", study._storage)
    return describe_storage(storage) if isinstance(storage, RDBStorage) else study.study_name


def count_as_drawn(sampler: BaseSampler, study: optuna.Study, trial: Trial) -> None:
    """Counts a trial of an earlier process as drawn by this sampler: a genetic one puts it into a generation.

    The first trial of a generation also decides its parents, which the others find in another order than the first.
    """
    if isinstance(sampler, BaseGASampler):
        generation = sampler.get_trial_generation(study, study._storage.get_trial(trial._trial_id))
        sampler.get_parent_population(study, generation)


def log_factor(compression: float) -> float:
    """The study's first objective: log10 of the factor, in which 25x to 50x is as far as 50x to 100x; at most 6."""
    return -math.log10(max(1 - compression, 1e-6))


def directions(limits: Constraints) -> list[StudyDirection]:
    """Which way each objective goes, in the order of `Constraints.values`."""
    return [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (1 + len(limits.objectives))]


def _name_cost(metric: Metric) -> str:
    """The name of a metric as a cost: its negative where higher is better."""
    return metric.val if metric.better == "lower" else f"-{metric.val}"


def open_study(
    storage: RDBStorage,
    name: str,
    run_dir: Path,
    fingerprint: Mapping[str, str],
    limits: Constraints = NO_CONSTRAINTS,
) -> optuna.Study:
    """Creates a run's study or goes on with it: maximises log10(factor), minimises metric and costs.

    `fingerprint` identifies what is searched, part by part. Raises a `UserError` that names the parts that are not
    those of the study, and where the study is lost.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ways, where = directions(limits), describe_storage(storage)
    with refuse_damage(where):
        study = optuna.create_study(storage=storage, study_name=name, directions=ways, load_if_exists=True)
        stored, trials = study.user_attrs.get("fingerprint"), study.get_trials(deepcopy=False)
        if study.directions != ways:
            raise ValueError("its objectives are not those of this search")
    if stored is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # names for dashboards, no more
            study.set_metric_names(["log10_factor", _name_cost(limits.metric), *limits.objectives])
        study.set_user_attr("fingerprint", dict(fingerprint))
    else:
        check_unchanged(stored, fingerprint, str(run_dir), "undo that, or use a new --run-dir")
    if any((run_dir / "results").glob("*.json")) and not trials:
        lost = f"{where}: the study has no trials, and {run_dir / 'results'} has; the study was lost"
        raise UserError(f"{lost}: put it back, or begin again with a new --run-dir")
    return study


def load_or_store_initial(study: optuna.Study, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a search knew before its first trial (`initial_trials.py`): read from the study, else measured and kept."""
    if "initial" not in study.user_attrs:
        study.set_user_attr("initial", measure())
    found: dict[str, Any] = study.user_attrs["initial"]
    return found
