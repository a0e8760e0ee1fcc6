"""What the sampler draws from: every round of every trial, in a study of its own that is kept in memory.

The run's study holds trials, as what they are. A sampler learns more from their rounds: each is an observation of the
ratios that it had reached. And it learns the wrong thing from errors after different lengths of retraining, so that an
error enters as what finishing is expected to make of it.
"""

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.samplers import BaseGASampler
from optuna.trial import Trial, TrialState, create_trial

from tune_prune.hpo.groups import GroupedRatio
from tune_prune.hpo.parameters import Choice, Parameter, Range
from tune_prune.hpo.study import directions, distributions, log_factor, make_sampler, to_study_params
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import PointRecord, TrialRecord

Drawn = dict[str, object]


class Observations:
    """A study in memory that mirrors the run's trials by number, and adds the rounds on their way.

    Errors in percent; an observation that does not keep the `limits` is infeasible.
    """

    def __init__(self, sampler: str, parameters: Mapping[str, Parameter], limits: Constraints) -> None:
        self._study = optuna.create_study(directions=directions(limits))
        self._sampler, self._parameters, self._limits = sampler, parameters, limits
        self._distributions = distributions(parameters)
        self._groups = {
            domain.group.name: domain.group for domain in parameters.values() if isinstance(domain, GroupedRatio)
        }.values()
        self._mirrored: dict[int, Trial] = {}

    def __contains__(self, number: int) -> bool:
        """Whether it knows of a trial."""
        return number in self._mirrored

    def draw(self, number: int, seed: int, given: Mapping[str, object] | None = None) -> Drawn:
        """The parameters of the trial `number`, under the study's names: drawn, or those that are given."""
        return self._ask(number, self._sampler, seed, given)

    def _ask(self, number: int, sampler: str, seed: int, given: Mapping[str, object] | None) -> Drawn:
        if given is not None:
            self._study.enqueue_trial(dict(given))
        self._study.sampler = make_sampler(sampler, seed, self._distributions)
        trial = self._study.ask(self._distributions)
        self._mirrored[number] = trial
        return dict(trial.params)

    def mirror(self, number: int, params: Mapping[str, object], drawn: bool) -> None:
        """A trial of an earlier process, with its parameters, which were `drawn` there or given."""
        self._ask(number, "random", 0, params)
        sampler = make_sampler(self._sampler, 0, self._distributions)
        if drawn and isinstance(sampler, BaseGASampler):  # whose draws are members of a generation
            sampler.get_trial_generation(self._study, self._study._storage.get_trial(self._mirrored[number]._trial_id))

    def observe(self, record: TrialRecord, expected: Sequence[float]) -> None:
        """What a trial's rounds measured; `expected` are their errors as finishing would leave them."""
        mirrored = self._mirrored[record.trial]
        if record.state == "complete":
            self._tell(mirrored, record.last, expected[-1])
            earlier = list(zip(record.points[:-1], expected, strict=False))
        else:
            self._study.tell(mirrored, state=TrialState.FAIL)
            earlier = list(zip(record.points, expected, strict=True))
        for point, error in earlier:
            self._add(record, point, error)

    def _tell(self, trial: Trial, point: PointRecord, error: float) -> None:
        # before the values: a sampler may look at the constraint as soon as the trial is complete
        for name, violation in self._limits.violations(error, point.costs).items():
            trial.set_constraint(name, violation)
        self._study.tell(trial, self._limits.values(log_factor(point.compression), error, point.costs))

    def _add(self, record: TrialRecord, point: PointRecord, error: float) -> None:
        """A round before the last, at the ratios that it had reached, as far as they lie in the ranges."""
        params = record.params | {f"ratio/{label}": ratio for label, ratio in point.reached.items()}
        params |= {group.name: group.ratio(point.reached) for group in self._groups}
        params = {
            name: params.get(name) for name, domain in self._parameters.items() if isinstance(domain, Choice | Range)
        }
        if math.isfinite(point.val_error) and all(value in self._parameters[name] for name, value in params.items()):  # type: ignore[operator]
            self._study.add_trial(
                create_trial(
                    params=to_study_params(params),
                    distributions=self._distributions,
                    values=self._limits.values(log_factor(point.compression), error, point.costs),
                    constraints=self._limits.violations(error, point.costs),
                )
            )
