"""The parameters of a trial: the ratios and pruners of its layers, and how it retrains."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from tune_prune.pruning.plan import Plan

Scalar = str | int | float | bool
RATIO, GROUP, PRUNER = "ratio/", "group/", "pruner/"
"""How the names of columns begin that hold one value a layer, or a group of layers."""


@dataclass(frozen=True)
class TrialParams:
    """What a trial prunes to, by which criterion, and how it retrains.

    `ratios` are by layer label, `groups` the ratios of groups of layers by their pattern. `pruner` is the pruner of all
    layers; where each layer has its own, it is None and `pruners` holds them by label. `training` are the other
    parameters of a space by name: `rounds`, `lr`, and so on, fields of `Plan`.
    """

    ratios: Mapping[str, float]
    pruner: str | None = None
    pruners: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Scalar] = field(default_factory=dict)

    @classmethod
    def from_columns(cls, columns: Mapping[str, object]) -> "TrialParams":
        """The parameters under flat names, as the study and the tables have them: `ratio/<layer>`, `pruner`, `lr`."""

        def beginning(prefix: str) -> dict[str, object]:
            return {key.removeprefix(prefix): value for key, value in columns.items() if key.startswith(prefix)}

        prefixes, pruner = (RATIO, GROUP, PRUNER), columns.get("pruner")
        others = {key: value for key, value in columns.items() if key != "pruner" and not key.startswith(prefixes)}
        return cls(
            ratios={label: float(ratio) for label, ratio in beginning(RATIO).items()},  # type: ignore[arg-type]
            pruner=None if pruner is None else str(pruner),
            pruners={label: str(name) for label, name in beginning(PRUNER).items()},
            groups={pattern: float(ratio) for pattern, ratio in beginning(GROUP).items()},  # type: ignore[arg-type]
            training=others,  # type: ignore[arg-type]
        )

    def to_columns(self) -> dict[str, Scalar]:
        """The parameters under flat names; `from_columns` makes equal ones of them."""
        columns: dict[str, Scalar] = {GROUP + pattern: ratio for pattern, ratio in self.groups.items()}
        columns |= {RATIO + label: ratio for label, ratio in self.ratios.items()}
        if self.pruner is not None:
            columns["pruner"] = self.pruner
        return columns | {PRUNER + label: name for label, name in self.pruners.items()} | dict(self.training)

    def to_plan(self) -> Plan:
        """The pruning plan that these parameters describe; what they leave open has the plan's default."""
        training = {f.name: self.training[f.name] for f in fields(Plan) if f.name in self.training}
        pruners = {label: self.pruners.get(label, self.pruner) for label in self.ratios}
        return Plan(ratios=dict(self.ratios), pruners=pruners, **training)  # type: ignore[arg-type]

    def with_training(self, **training: Scalar) -> "TrialParams":
        """The same ratios and pruners, retrained in another way."""
        return replace(self, training={**self.training, **training})
