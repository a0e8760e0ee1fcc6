"""Layers that share one drawn ratio, and what it makes of each of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tune_prune.curves import Curve, keeps

Shape = tuple[int, ...]
"""Of a layer's weight."""

SCALES = ("same", "erk", "sensitivity")
"""How a group's ratio is spread over its layers."""

HIGHEST = 0.9999
"""No layer of a group is given a higher ratio: what spreads weights unevenly would leave some layer none."""


@dataclass(frozen=True)
class Group:
    """Layers, by their weights' shapes, that share one ratio: the share of all their weights that is removed.

    `scale` spreads it. "same": each layer has it. "erk": what a layer keeps is in proportion to the sum of its
    dimensions over their product, all of it at most, so that small layers keep more (Evci et al. 2020, sec. 3).
    "sensitivity": each layer gives weights up to the same price, by the layers' `curves`.
    """

    name: str
    scale: str
    shapes: Mapping[str, Shape]
    curves: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, int]:
        """Weights of each layer."""
        return {layer: math.prod(shape) for layer, shape in self.shapes.items()}

    def ratios(self, ratio: float) -> dict[str, float]:
        """The ratio of each layer that this ratio of the group makes."""
        if self.scale == "same":
            return dict.fromkeys(self.shapes, ratio)
        kept = (1 - ratio) * sum(self.weights.values())
        shares = self._erk(kept) if self.scale == "erk" else keeps({k: self.curves[k] for k in self.shapes}, kept)
        return {layer: min(max(0.0, 1 - share), HIGHEST) for layer, share in shares.items()}

    def ratio(self, ratios: Mapping[str, float]) -> float:
        """The group's ratio that these ratios of its layers make."""
        alone = {ratios[layer] for layer in self.shapes}
        if len(alone) == 1:
            return alone.pop()  # exactly
        removed = math.fsum(ratios[layer] * weights for layer, weights in self.weights.items())
        return removed / sum(self.weights.values())

    def _erk(self, kept: float) -> dict[str, float]:
        """Shares to keep; a layer that would keep more than all of it keeps all, and the others share the rest."""
        density = {layer: sum(shape) / math.prod(shape) for layer, shape in self.shapes.items()}
        whole: set[str] = set()
        while True:
            rest = {layer: n for layer, n in self.weights.items() if layer not in whole}
            left = kept - sum(self.weights[layer] for layer in whole)
            scale = left / sum(density[layer] * n for layer, n in rest.items()) if rest else 0.0
            over = {layer for layer in rest if scale * density[layer] > 1}
            if not over:
                return {layer: 1.0 if layer in whole else scale * density[layer] for layer in self.shapes}
            whole |= over


@dataclass(frozen=True)
class Part:
    """A layer's ratio as its group's ratio makes it."""

    group: Group
    layer: str

    def __str__(self) -> str:
        how = "" if self.group.scale == "same" else f", by {self.group.scale}"
        return f"with {self.group.name}{how}"
