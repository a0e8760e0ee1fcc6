"""A search space: which parameters of a trial are fixed, chosen or drawn, per layer and for the whole trial."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from tune_prune.common.entrypoints import describe_address
from tune_prune.common.errors import UserError, format_names
from tune_prune.hpo.groups import Group, GroupedRatio, LossCurve, Shape
from tune_prune.hpo.parameters import (
    Choice,
    Domain,
    Parameter,
    Range,
    Scalar,
    check_pruner,
    find_largest,
    midpoint,
    parse_domain,
)  # fmt: skip
from tune_prune.hpo.phases import Features, GradualPruning, InitialTrials, Refinement
from tune_prune.pruning.granularity import GROUPED, MIXTURE_NAMES, MIXTURES
from tune_prune.pruning.plan import WEIGHTS, Plan
from tune_prune.results.constraints import COSTS, LATENCY
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metric_functions import name_metric
from tune_prune.tasks.settings import DEFAULT, TaskSettings

GRADUAL_SHARE = 2
"""Gradual pruning takes at most one of so many trials of the budget."""


@dataclass(frozen=True)
class Space:
    """The content of a space's file. `ratios` are (pattern, domain) in its order: a layer's first match counts.

    `groups` are the patterns whose layers share one ratio, each with the scale that derives the layers' ratios from it
    (`groups.py`). Layers that a pattern of `exclude` matches are not pruned. `acc_tradeoff` is None where the metric
    decides it. `at_most` and `at_least` limit costs and further metrics, and `objectives` are costs to be minimised
    (`constraints.py`). `settings` say what else the task is than a model and data. `workers_per_trial` processes train
    a trial, unless a flag says otherwise.
    """

    name: str
    source: str
    model: str
    data: str
    weights: str | None
    parameters: Mapping[str, Domain]
    ratios: Sequence[tuple[str, Domain]]
    acc_tradeoff: float | None
    budget: int
    refine: Refinement
    initial_points: Sequence[Mapping[str, object]]
    pruner_scope: str = "model"
    initial: InitialTrials = field(default_factory=InitialTrials)
    gradual: GradualPruning = field(default_factory=GradualPruning)
    features: Features = field(default_factory=Features)
    exclude: Sequence[str] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    objectives: Sequence[str] = ()
    settings: TaskSettings = DEFAULT
    workers_per_trial: int = 1

    def parameters_for(
        self, shapes: Mapping[str, Shape], curves: Mapping[str, LossCurve] | None = None
    ) -> dict[str, Parameter]:
        """The parameters of a trial of a model whose layers have weights of these shapes, by name.

        They are `group/<pattern>` of each group and `ratio/<layer>` of each layer, then all others. A layer that no
        pattern matches is not pruned. `curves` are the loss curves of layers whose group scales by sensitivity; without
        them such a group cannot derive its layers' ratios. Raises a `UserError` where a pattern matches no layer.
        """
        self._check_patterns(shapes)
        found: dict[str, Parameter] = {}
        for (pattern, domain), layers in self._matched(shapes):
            if pattern in self.groups:
                known_curves = {layer: curve for layer, curve in (curves or {}).items() if layer in layers}
                group = Group(f"group/{pattern}", self.groups[pattern], layers, known_curves)
                found[group.name] = domain
            for layer in layers:
                found[f"ratio/{layer}"] = GroupedRatio(group, layer) if pattern in self.groups else domain
        # in the model's order, each group before its first layer
        order = {f"ratio/{layer}": at for at, layer in enumerate(shapes)}
        first = {k.group.name: order[name] for name, k in reversed(found.items()) if isinstance(k, GroupedRatio)}
        found = dict(sorted(found.items(), key=lambda item: first.get(item[0], order.get(item[0], 0))))
        if self.pruner_scope == "model":
            return found | dict(self.parameters)
        pruners = {name.replace("ratio/", "pruner/", 1): self.parameters["pruner"] for name in found if name in order}
        return found | pruners | {name: domain for name, domain in self.parameters.items() if name != "pruner"}

    def check_limits(self) -> None:
        """Raises a `UserError` for a limit on what is no cost, and no further metric of the task."""
        metrics = [f"val_{name_metric(address)}" for address in self.settings.further_metrics or ()]
        known = {"at_most": [*COSTS, *metrics], "at_least": metrics}
        for key, limits in {"at_most": self.at_most, "at_least": self.at_least}.items():
            for name in limits:
                if name not in known[key]:
                    names = f"known: {format_names(known[key])}" if known[key] else "there is none"
                    what = f"goal.{key}.{name} names no {'cost and no ' if key == 'at_most' else ''}further metric"
                    raise UserError(f"{self.source}: {what}; {names}; task.further_metrics adds some")

    def _matched(self, shapes: Mapping[str, Shape]) -> Iterator[tuple[tuple[str, Domain], dict[str, Shape]]]:
        """The patterns, each with the layers that it is the first to match, where there are any."""
        rest = {k: v for k, v in shapes.items() if not any(fnmatchcase(k, pattern) for pattern in self.exclude)}
        for pattern, domain in self.ratios:
            layers = {label: shape for label, shape in rest.items() if fnmatchcase(label, pattern)}
            rest = {label: shape for label, shape in rest.items() if label not in layers}
            if layers:
                yield (pattern, domain), layers

    def _check_patterns(self, layers: Mapping[str, Shape]) -> None:
        patterns = [(f"space.ratio.{pattern!r}", pattern) for pattern, _ in self.ratios]
        for where, pattern in [*patterns, *((f"space.exclude: {pattern!r}", pattern) for pattern in self.exclude)]:
            if not any(fnmatchcase(label, pattern) for label in layers):
                there = f"layers that can be pruned: {format_names(layers)}"
                if pattern.startswith(WEIGHTS) and self.parameters.get("granularity") not in MIXTURES:
                    there += f"; a name with {WEIGHTS} is of granularity {MIXTURE_NAMES}"
                raise UserError(f"{self.source}: {where} matches no layer of {describe_address(self.model)}; {there}")

    @property
    def prunes_channels(self) -> bool:
        """Whether channels, heads or blocks are pruned, in groups of layers that have one ratio each."""
        return self.parameters.get("granularity") in GROUPED

    def gradual_within(self, budget: int | None) -> GradualPruning | None:
        """Gradual pruning within a budget of trials; None where there is none, or no trial starts from another.

        It takes at most one of GRADUAL_SHARE trials, and of a budget below the space's that share of its steps.
        """
        if not self.features.warm_start:
            return None
        found = self.gradual
        if budget is not None:
            found = found.within(budget // GRADUAL_SHARE, budget / self.budget)
        return found if found.steps else None

    @property
    def uses_latency(self) -> bool:
        """Whether latency is limited or an objective."""
        return any(name in {*self.at_most, *self.objectives} for name in LATENCY)

    @property
    def pruners(self) -> tuple[str, ...]:
        """Every pruner that a trial may take."""
        domain = self.parameters["pruner"]
        return tuple(str(name) for name in (domain.options if isinstance(domain, Choice) else (domain,)))

    @property
    def largest_sample(self) -> int:
        """The number of training images for cached statistics: the largest `sample` that a trial may take."""
        return int(find_largest(self.parameters.get("sample", Plan.sample), whole=True))

    def with_pruners(self, names: Sequence[str]) -> "Space":
        """The same space with another choice of pruners."""
        return replace(
            self,
            parameters={**self.parameters, "pruner": parse_domain(list(names), check_pruner, "--pruners")},
        )

    def initial_params(self, shapes: Mapping[str, Shape]) -> list[dict[str, object]]:
        """The initial points as parameters by name: a single `ratio` is every layer's; none leaves its layer's range.

        Raises a `UserError` where a point names a layer that the model does not have.
        """
        params = self.parameters_for(shapes)
        for number, point in enumerate(self.initial_points, start=1):
            named = point["ratio"] if isinstance(point["ratio"], Mapping) else {}
            for label in set(named) - set(shapes):
                where = f"{self.source}: initial.point {number}: ratio.{label}"
                what = f"names no layer of {describe_address(self.model)}"
                raise UserError(f"{where} {what}; layers that can be pruned: {format_names(shapes)}")
        return [self._point_params(point, params) for point in self.initial_points]

    def level_params(self, ratios: Mapping[str, float], pruner: str, shapes: Mapping[str, Shape]) -> dict[str, object]:
        """An initial point with these ratios by layer and this pruner, and the midpoints of all other parameters."""
        others = {name: midpoint(domain) for name, domain in self.parameters.items()}
        return self._point_params(others | {"ratio": ratios, "pruner": pruner}, self.parameters_for(shapes))

    def midpoint(self, shapes: Mapping[str, Shape]) -> TrialParams:
        """Every parameter in the middle of its range, or its first option; layers in a group all have its ratio."""
        return self.choose(shapes, midpoint)

    def choose(self, shapes: Mapping[str, Shape], choose: Callable[[Domain], Scalar]) -> TrialParams:
        """Every parameter as a function chooses it of its domain; layers in a group all have its ratio."""
        found: dict[str, object] = {}
        for name, domain in self.parameters_for(shapes).items():
            found[name] = found[domain.group.name] if isinstance(domain, GroupedRatio) else choose(domain)
        return TrialParams.from_columns(found)

    def _point_params(self, point: Mapping[str, object], params: Mapping[str, Parameter]) -> dict[str, object]:
        """An initial point as parameters by name, within their domains; parameters that are left out are drawn."""
        ratio: Any = point["ratio"]
        values = {key: value for key, value in point.items() if key != "ratio"}
        if "pruner" in values:
            values |= {name: values["pruner"] for name in params if name.startswith("pruner/")}
        ratios = {name: ratio.get(name.removeprefix("ratio/")) if isinstance(ratio, Mapping) else ratio
                  for name in params if name.startswith("ratio/")}  # fmt: skip
        groups = {domain.group.name: domain.group for domain in params.values() if isinstance(domain, GroupedRatio)}
        ratios |= {name: _group_ratio(group, ratios) for name, group in groups.items()}
        for name, value in ratios.items():
            domain = params[name]
            if value is not None and isinstance(domain, Range):
                values[name] = min(max(float(value), domain.low), domain.high)
        # a value outside its domain is drawn instead: `--pruners` may have taken it away
        searched = {name: domain for name, domain in params.items() if isinstance(domain, Range | Choice)}
        return {name: value for name, value in values.items() if name in searched and value in searched[name]}


def _group_ratio(group: Group, ratios: Mapping[str, Any]) -> float | None:
    """The ratio of a group from some of its layers' ratios, by `ratio/<layer>`; the others count as their mean."""
    given = {layer: ratios[f"ratio/{layer}"] for layer in group.shapes}
    numbers = [float(value) for value in given.values() if value is not None]
    if not numbers:
        return None
    mean = sum(numbers) / len(numbers)
    return group.ratio({layer: mean if value is None else float(value) for layer, value in given.items()})
