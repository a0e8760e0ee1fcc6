"""What the sampler draws from: every round of every trial, in a study in memory.

The run's study holds trials. A sampler learns more from their rounds: each is an observation of the ratios that it had
reached. Metrics after different lengths of retraining would mislead it, so that one enters as it is expected after
refinement.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.trial import Trial, TrialState, create_trial

from tune_prune.hpo.groups import GroupedRatio
from tune_prune.hpo.parameters import Choice, Parameter, Range
from tune_prune.hpo.study import count_as_drawn, directions, distributions, log_factor, make_sampler, to_study_params
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.trial_params import GROUP

StudyParams = dict[str, object]


class Observations:
    """A study in memory that mirrors the run's trials by number, and adds their earlier rounds.

    An observation that violates the `limits` is infeasible.
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
        """Whether a trial is mirrored here."""
        return number in self._mirrored

    def draw(self, number: int, seed: int, given: Mapping[str, object] | None = None) -> StudyParams:
        """The parameters of trial `number` under the study's names; those that are not `given` are drawn."""
        return self._ask(number, self._sampler, seed, given)

    def _ask(self, number: int, sampler: str, seed: int, given: Mapping[str, object] | None) -> StudyParams:
        if given is not None:
            self._study.enqueue_trial(dict(given))
        self._study.sampler = make_sampler(sampler, seed, self._distributions)
        trial = self._study.ask(self._distributions)
        self._mirrored[number] = trial
        return dict(trial.params)

    def mirror(self, number: int, params: Mapping[str, object], drawn: bool) -> None:
        """Mirrors a trial of an earlier process; `drawn` says whether the sampler drew its parameters there."""
        self._ask(number, "random", 0, params)
        if drawn:
            count_as_drawn(make_sampler(self._sampler, 0, self._distributions), self._study, self._mirrored[number])

    def observe(self, record: TrialRecord, expected: Sequence[float]) -> None:
        """Adds what a trial's rounds measured; `expected` are their metrics as expected after refinement."""
        mirrored = self._mirrored[record.trial]
        if record.state == "complete":
            self._complete(mirrored, record.last, expected[-1])
            earlier = list(zip(record.points[:-1], expected, strict=False))
        else:
            self._study.tell(mirrored, state=TrialState.FAIL)
            earlier = list(zip(record.points, expected, strict=True))
        for point, value in earlier:
            self._add(record, point, value)

    def _complete(self, trial: Trial, point: PointRecord, value: float) -> None:
        # before the values: a sampler may look at the constraint as soon as the trial is complete
        for name, violation in self._limits.violations(value, point.costs).items():
            trial.set_constraint(name, violation)
        self._study.tell(trial, self._limits.values(log_factor(point.compression), value, point.costs))

    def _add(self, record: TrialRecord, point: PointRecord, value: float) -> None:
        """Adds a round before the last, at the ratios that it had reached, if they lie in the ranges."""
        groups = {group.name.removeprefix(GROUP): group.ratio(point.reached) for group in self._groups}
        reached = replace(record.params, ratios={**record.params.ratios, **point.reached}, groups=groups).to_columns()
        searched = {name: domain for name, domain in self._parameters.items() if isinstance(domain, Choice | Range)}
        params = {name: reached.get(name) for name in searched}
        if math.isfinite(point.val_metric) and all(params[name] in domain for name, domain in searched.items()):
            self._study.add_trial(
                create_trial(
                    params=to_study_params(params),
                    distributions=self._distributions,
                    values=self._limits.values(log_factor(point.compression), value, point.costs),
                    constraints=self._limits.violations(value, point.costs),
                )
            )
