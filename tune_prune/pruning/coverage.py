"""Measures how many of a model's weights `compression` counts, and names those that it leaves out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import nn

from tune_prune.pruning import masks
from tune_prune.pruning.weights import labelled_modules

FEW = 0.9
"""The share of counted weights below which a warning is given: `compression` then says little of the model."""

NAMED = 3
"""Modules that a warning names."""


@dataclass(frozen=True)
class LeftOut:
    """A module whose weights cannot be pruned: its label, its type, and how many they are."""

    module: str
    type: str
    weights: int


@dataclass(frozen=True)
class Coverage:
    """The weights that `compression` counts, those that can be pruned, among all weights of a model.

    Weights are the parameters of two and more dimensions, each once where several modules share it: matrices, filters
    and embeddings. Biases and the parameters of normalisations, which are vectors, are never counted. `left_out` are
    the modules that hold the others, the largest first.
    """

    counted: int
    total: int
    left_out: Sequence[LeftOut] = ()

    @property
    def share(self) -> float:
        """The share of the weights that is counted, in [0, 1]."""
        return self.counted / self.total if self.total else 1.0

    def describe(self) -> str:
        """Describes it in a line, which warns where few weights are counted."""
        counts = f"compression counts {self.counted:,} of the model's {self.total:,} weights ({100 * self.share:.4g} %)"
        if self.share >= FEW:
            return counts
        names = [f"{one.module} ({one.type}, {one.weights:,})" for one in self.left_out[:NAMED]]
        more = [f"{len(self.left_out) - NAMED} more"] if len(self.left_out) > NAMED else []
        return f"warning: {counts}; not pruned and not counted: {', '.join([*names, *more])}"

    def to_dict(self) -> dict[str, object]:
        """The coverage as summary.json has it."""
        rest = [asdict(one) for one in self.left_out]
        return {"counted": self.counted, "total": self.total, "share": self.share, "left_out": rest}


def measure_coverage(model: nn.Module) -> Coverage:
    """Counts the weights of a model that can be pruned, and all of its weights."""
    prunable = masks.parameters(model)
    seen = {id(weight) for weight in prunable}
    rest: Counter[tuple[str, str]] = Counter()
    for label, module in [*labelled_modules(model), ("", model)]:  # of a Sequential, the latter yields only parts
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1 and id(parameter) not in seen:
                seen.add(id(parameter))
                rest[(label, type(module).__name__) if label else (name, "Parameter")] += parameter.numel()
    counted = sum(weight.numel() for weight in prunable)
    left_out = [LeftOut(module, kind, weights) for (module, kind), weights in rest.most_common()]
    return Coverage(counted, counted + sum(rest.values()), left_out)
