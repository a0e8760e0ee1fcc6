"""A search space: search_spaces/*.toml -> what is fixed, chosen or drawn, per layer and for the whole trial."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from tune_prune import knobs
from tune_prune.criteria import find
from tune_prune.errors import UserError, known
from tune_prune.knobs import Check, Choice, Knob, Number, OwnKnob, Range, Same
from tune_prune.pruning import Plan
from tune_prune.schedule import schedules

RATIO = Number(0, 1, open_high=True)


def _pruner(value: object) -> str | None:
    find(str(value))  # raises a UserError that lists what there is
    return None


def _schedule(value: object) -> str | None:
    schedules[str(value)]
    return None


KNOBS: Mapping[str, Check] = {
    "pruner": _pruner,
    "schedule": _schedule,
    "rounds": Number(1, whole=True),
    "steps": Number(0, whole=True),
    "final_steps": Number(0, whole=True),
    "lr": Number(0),
    "momentum": Number(0, 1, open_high=True),
    "weight_decay": Number(0),
    "l1": Number(0),
    "batch_size": Number(1, whole=True),
    "distill": Number(0, 1),
    "temperature": Number(0.01),
    "sample": Number(1, whole=True),
}
"""What `[space]` may hold beside the ratios: the fields of `pruning.Plan`, and the pruner."""

SCOPES = ("model", "layer")
"""Whether a trial takes one pruner for the whole model, or one for each layer."""


@dataclass(frozen=True)
class Finish:
    """How what looks best is finished: the share of the budget kept for it, and how those trials prune and train.

    Such a trial goes back to a recorded round of few removed weights and prunes from there, geometrically in so many
    `rounds` from the dense model on; its `steps` are spread evenly over the rounds that it has left.
    """

    share: float = 0.0
    rounds: int = 12
    steps: int = 1000
    lr: float = 0.05


@dataclass(frozen=True)
class Prior:
    """How many levels of compression the layers' curves are asked for at first, and between which factors."""

    levels: int = 16
    first: float = 3.0
    farthest: float = 100.0


@dataclass(frozen=True)
class Economy:
    """What spares a search compute, each of which can be switched off to see what it is worth.

    `rounds`: the sampler learns from every round, not from last ones alone. `stop`: trials that promise nothing are
    stopped. `inherit`: trials begin at recorded rounds that they contain, not all at the dense model.
    """

    rounds: bool = True
    stop: bool = True
    inherit: bool = True


@dataclass(frozen=True)
class Space:
    """One file, one search. `ratios` are (pattern, knob) in the file's order: for a layer the first match counts.

    A pattern that is `together` gives all its layers one ratio; what a pattern of `exclude` matches is left whole.
    """

    name: str
    source: str
    model: str
    data: str
    weights: str | None
    knobs: Mapping[str, OwnKnob]
    ratios: Sequence[tuple[str, OwnKnob]]
    acc_tradeoff: float
    budget: int
    finish: Finish
    guesses: Sequence[Mapping[str, object]]
    pruner_scope: str = "model"
    prior: Prior = Prior()
    economy: Economy = Economy()
    exclude: Sequence[str] = ()
    together: Collection[str] = ()

    def params(self, labels: Sequence[str]) -> dict[str, Knob]:
        """Every parameter of a trial in a model with these layers: `ratio/<layer>` first, then the others.

        A layer that no pattern matches is not pruned. A `UserError` where a pattern matches no layer.
        """
        patterns = [(f"space.ratio.{pattern!r}", pattern) for pattern, _ in self.ratios]
        for where, pattern in [*patterns, *((f"space.exclude: {pattern!r}", pattern) for pattern in self.exclude)]:
            if not any(fnmatchcase(label, pattern) for label in labels):
                there = f"layers that can be pruned: {known(labels)}"
                raise UserError(f"{self.source}: {where} matches no layer of {self.model}; {there}")
        found: dict[str, Knob] = {}
        first: dict[str, str] = {}  # of the layers that a pattern holds together
        for label in labels:
            match = next(((pattern, knob) for pattern, knob in self.ratios if fnmatchcase(label, pattern)), None)
            if match is None or any(fnmatchcase(label, pattern) for pattern in self.exclude):
                continue
            pattern, knob = match
            found[f"ratio/{label}"] = Same(first[pattern]) if pattern in first else knob
            if pattern in self.together:
                first.setdefault(pattern, f"ratio/{label}")
        if self.pruner_scope == "model":
            return found | dict(self.knobs)
        pruners = {name.replace("ratio/", "pruner/", 1): self.knobs["pruner"] for name in found}
        return found | pruners | {name: knob for name, knob in self.knobs.items() if name != "pruner"}

    @property
    def pruners(self) -> tuple[str, ...]:
        """Every pruner that a trial may take."""
        knob = self.knobs["pruner"]
        return tuple(str(name) for name in (knob.options if isinstance(knob, Choice) else (knob,)))

    def with_pruners(self, names: Sequence[str]) -> "Space":
        """The same space with another choice of pruners."""
        return replace(self, knobs={**self.knobs, "pruner": knobs.parse(list(names), _pruner, "--pruners")})

    def queue(self, labels: Sequence[str]) -> list[dict[str, object]]:
        """The first guesses as parameters: a guess's one `ratio` is every layer's; none leaves its layer's range.

        A `UserError` where a guess names a layer that the model does not have.
        """
        params = self.params(labels)
        for number, guess in enumerate(self.guesses, start=1):
            named = guess["ratio"] if isinstance(guess["ratio"], Mapping) else {}
            for label in set(named) - set(labels):
                where = f"{self.source}: guess {number}: ratio.{label} names no layer of {self.model}"
                raise UserError(f"{where}; layers that can be pruned: {known(labels)}")
        return [self._guess(guess, params) for guess in self.guesses]

    def level(self, ratios: Mapping[str, float], pruner: str, labels: Sequence[str]) -> dict[str, object]:
        """A guess with these ratios by layer and this pruner; of all else the middle."""
        others = {name: knobs.middle(knob) for name, knob in self.knobs.items()}
        return self._guess(others | {"ratio": ratios, "pruner": pruner}, self.params(labels))

    def middle(self, labels: Sequence[str]) -> dict[str, object]:
        """Every parameter in the middle of its range, or its first option."""
        found: dict[str, object] = {}
        for name, knob in self.params(labels).items():
            found[name] = found[knob.name] if isinstance(knob, Same) else knobs.middle(knob)
        return found

    def _guess(self, guess: Mapping[str, object], params: Mapping[str, Knob]) -> dict[str, object]:
        ratio: Any = guess["ratio"]
        wanted = {k: v for k, v in guess.items() if k != "ratio"}
        if "pruner" in wanted:
            wanted |= {name: wanted["pruner"] for name in params if name.startswith("pruner/")}
        for key, knob in params.items():
            if key.startswith("ratio/") and isinstance(knob, Range):
                alike = [key, *(name for name, other in params.items() if other == Same(key))]
                values = [ratio.get(k.removeprefix("ratio/")) for k in alike] if isinstance(ratio, dict) else [ratio]
                given = [float(value) for value in values if value is not None]
                if given:  # of layers that have one ratio the mean
                    wanted[key] = min(max(math.fsum(given) / len(given), knob.low), knob.high)
        # a value that its knob does not hold is left to be drawn, for `--pruners` may have taken it away
        drawn = {k: knob for k, knob in params.items() if isinstance(knob, Range | Choice)}
        return {k: v for k, v in wanted.items() if k in drawn and v in drawn[k]}


def ratios_of(params: Mapping[str, Any]) -> dict[str, float]:
    """The ratios among a trial's parameters, by layer."""
    return {k.removeprefix("ratio/"): float(v) for k, v in params.items() if k.startswith("ratio/")}


def to_plan(params: Mapping[str, Any]) -> Plan:
    """The pruning plan of a trial's parameters."""
    ratios = ratios_of(params)
    rest = {f.name: params[f.name] for f in fields(Plan) if f.name in params}
    pruners = {label: params.get(f"pruner/{label}", params.get("pruner")) for label in ratios}
    return Plan(ratios=ratios, pruners=pruners, **rest)
