"""How a search spends its budget: what is tried first, what is finished, and what is spared.

A search space: search_spaces/*.toml -> what is fixed, chosen or drawn, per layer and for the whole trial.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from tune_prune.common.errors import UserError, format_names
from tune_prune.hpo import parameters
from tune_prune.hpo.groups import Group, GroupedRatio, LossCurve, Shape
from tune_prune.hpo.parameters import Choice, Domain, Parameter, Range, check_pruner
from tune_prune.pruning.plan import Plan


@dataclass(frozen=True)
class Refinement:
    """How what looks best is finished: the share of the budget kept for it, and how those trials prune and train.

    Such a trial goes back to a recorded round of few removed weights and prunes from there, geometrically in so many
    `rounds` from the dense model on; its `steps` are spread evenly over the rounds that it has left.
    """

    share: float = 0.0
    rounds: int = 12
    steps: int = 1000
    lr: float = 0.05


@dataclass(frozen=True)
class InitialTrials:
    """How many levels of compression the layers' curves are asked for at first, and between which factors."""

    trials: int = 16
    min_factor: float = 3.0
    max_factor: float = 100.0


@dataclass(frozen=True)
class Features:
    """What spares a search compute, each of which can be switched off to see what it is worth.

    `rounds`: the sampler learns from every round, not from last ones alone. `stop`: trials that promise nothing are
    stopped. `inherit`: trials begin at recorded rounds that they contain, not all at the dense model.
    """

    learn_from_rounds: bool = True
    early_stopping: bool = True
    warm_start: bool = True


@dataclass(frozen=True)
class Space:
    """One file, one search. `ratios` are (pattern, knob) in the file's order: for a layer the first match counts.

    A pattern that is `together` draws one ratio for all its layers, and the scale says what each gets of it
    (`groups.py`); what a pattern of `exclude` matches is left whole. `at_most` limits costs, and `objectives`
    are costs to be minimised (`limits.py`).
    """

    name: str
    source: str
    model: str
    data: str
    weights: str | None
    parameters: Mapping[str, Domain]
    ratios: Sequence[tuple[str, Domain]]
    acc_tradeoff: float
    budget: int
    refine: Refinement
    initial_points: Sequence[Mapping[str, object]]
    pruner_scope: str = "model"
    initial: InitialTrials = field(default_factory=InitialTrials)
    features: Features = field(default_factory=Features)
    exclude: Sequence[str] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    objectives: Sequence[str] = ()

    def parameters_for(
        self, shapes: Mapping[str, Shape], curves: Mapping[str, LossCurve] | None = None
    ) -> dict[str, Parameter]:
        """Every parameter of a trial in a model whose layers have weights of these shapes.

        First `group/<pattern>` of layers that are pruned together and `ratio/<layer>` of each, then the others; a layer
        that no pattern matches is not pruned. `curves` are those of layers whose group goes by sensitivity: without
        them what the group makes of each is left open. A `UserError` where a pattern matches no layer.
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

    def _matched(self, shapes: Mapping[str, Shape]) -> Iterator[tuple[tuple[str, Domain], dict[str, Shape]]]:
        """The patterns, and the layers for which each is the first that matches, where there are any."""
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
                raise UserError(f"{self.source}: {where} matches no layer of {self.model}; {there}")

    @property
    def pruners(self) -> tuple[str, ...]:
        """Every pruner that a trial may take."""
        domain = self.parameters["pruner"]
        return tuple(str(name) for name in (domain.options if isinstance(domain, Choice) else (domain,)))

    def with_pruners(self, names: Sequence[str]) -> "Space":
        """The same space with another choice of pruners."""
        return replace(
            self,
            parameters={**self.parameters, "pruner": parameters.parse_domain(list(names), check_pruner, "--pruners")},
        )

    def initial_params(self, shapes: Mapping[str, Shape]) -> list[dict[str, object]]:
        """The first guesses as parameters: a guess's one `ratio` is every layer's; none leaves its layer's range.

        A `UserError` where a guess names a layer that the model does not have.
        """
        params = self.parameters_for(shapes)
        for number, guess in enumerate(self.initial_points, start=1):
            named = guess["ratio"] if isinstance(guess["ratio"], Mapping) else {}
            for label in set(named) - set(shapes):
                where = f"{self.source}: initial.point {number}: ratio.{label} names no layer of {self.model}"
                raise UserError(f"{where}; layers that can be pruned: {format_names(shapes)}")
        return [self._guess(guess, params) for guess in self.initial_points]

    def level_params(self, ratios: Mapping[str, float], pruner: str, shapes: Mapping[str, Shape]) -> dict[str, object]:
        """A guess with these ratios by layer and this pruner; of all else the middle."""
        others = {name: parameters.midpoint(domain) for name, domain in self.parameters.items()}
        return self._guess(others | {"ratio": ratios, "pruner": pruner}, self.parameters_for(shapes))

    def midpoint(self, shapes: Mapping[str, Shape]) -> dict[str, object]:
        """Every parameter in the middle of its range, or its first option; layers in a group all have its ratio."""
        found: dict[str, object] = {}
        for name, domain in self.parameters_for(shapes).items():
            found[name] = found[domain.group.name] if isinstance(domain, GroupedRatio) else parameters.midpoint(domain)
        return found

    def _guess(self, guess: Mapping[str, object], params: Mapping[str, Parameter]) -> dict[str, object]:
        ratio: Any = guess["ratio"]
        wanted = {k: v for k, v in guess.items() if k != "ratio"}
        if "pruner" in wanted:
            wanted |= {name: wanted["pruner"] for name in params if name.startswith("pruner/")}
        given = {name: ratio.get(name.removeprefix("ratio/")) if isinstance(ratio, Mapping) else ratio
                 for name in params if name.startswith("ratio/")}  # fmt: skip
        groups = {domain.group.name: domain.group for domain in params.values() if isinstance(domain, GroupedRatio)}
        given |= {name: _group_ratio(group, given) for name, group in groups.items()}
        for key, value in given.items():
            domain = params[key]
            if value is not None and isinstance(domain, Range):
                wanted[key] = min(max(float(value), domain.low), domain.high)
        # a value that its knob does not hold is left to be drawn, for `--pruners` may have taken it away
        drawn = {k: domain for k, domain in params.items() if isinstance(domain, Range | Choice)}
        return {k: v for k, v in wanted.items() if k in drawn and v in drawn[k]}


def _group_ratio(group: Group, given: Mapping[str, Any]) -> float | None:
    """The group's ratio where some of its layers' are given, by `ratio/<layer>`; the others count as their mean."""
    said = {layer: given[f"ratio/{layer}"] for layer in group.shapes}
    known_ones = [float(value) for value in said.values() if value is not None]
    if not known_ones:
        return None
    mean = sum(known_ones) / len(known_ones)
    return group.ratio({layer: mean if value is None else float(value) for layer, value in said.items()})


def ratios_of(params: Mapping[str, Any]) -> dict[str, float]:
    """The ratios among a trial's parameters, by layer."""
    return {k.removeprefix("ratio/"): float(v) for k, v in params.items() if k.startswith("ratio/")}


def to_plan(params: Mapping[str, Any]) -> Plan:
    """The pruning plan of a trial's parameters."""
    ratios = ratios_of(params)
    rest = {f.name: params[f.name] for f in fields(Plan) if f.name in params}
    pruners = {label: params.get(f"pruner/{label}", params.get("pruner")) for label in ratios}
    return Plan(ratios=ratios, pruners=pruners, **rest)
