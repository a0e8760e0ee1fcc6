"""What removing a layer's weights is thought to cost: power laws, and the ratios that spend a loss best over layers.

A layer's curve is the rise of the loss over the share it keeps, a * keep^-b. The shares that keep fewest weights at a
given total rise of the loss are those at which every layer asks the same price for its next weight (Lagrange).

Layers that share one drawn ratio, and what it makes of each of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LossCurve:
    """The rise of the loss, in nats, that pruning one layer alone makes: scale * keep^-power.

    `weights` in all, of which a share from `low` to `high` may be kept.
    """

    weights: int
    scale: float
    power: float
    low: float
    high: float

    def keep(self, price: float) -> float:
        """The share to keep where a weight may cost `price` nats: there the curve falls by that much a weight."""
        free = math.pow(self.scale * self.power / (price * self.weights), 1 / (self.power + 1))
        return min(max(free, self.low), self.high)


def allocate_weights(curves: Mapping[str, LossCurve], kept: float) -> dict[str, float]:
    """The share of each layer to keep, so that about `kept` weights stay in all at the least rise of the loss.

    What the curves' bounds do not allow comes as near as they do.
    """
    low, high = -100.0, 100.0  # of the price's logarithm
    for _ in range(100):
        middle = (low + high) / 2
        if sum(curve.weights * curve.keep(math.exp(middle)) for curve in curves.values()) > kept:
            low = middle
        else:
            high = middle
    return {layer: curve.keep(math.exp(high)) for layer, curve in curves.items()}


Shape = tuple[int, ...]
"""Of a layer's weight."""

SCALES = ("same", "erk", "sensitivity")
"""How a group's ratio is spread over its layers."""

MAX_RATIO = 0.9999
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
    curves: Mapping[str, LossCurve] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, int]:
        """Weights of each layer."""
        return {layer: math.prod(shape) for layer, shape in self.shapes.items()}

    def ratios(self, ratio: float) -> dict[str, float]:
        """The ratio of each layer that this ratio of the group makes."""
        if self.scale == "same":
            return dict.fromkeys(self.shapes, ratio)
        kept = (1 - ratio) * sum(self.weights.values())
        shares = (
            self._erk(kept) if self.scale == "erk" else allocate_weights({k: self.curves[k] for k in self.shapes}, kept)
        )
        return {layer: min(max(0.0, 1 - share), MAX_RATIO) for layer, share in shares.items()}

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
class GroupedRatio:
    """A layer's ratio as its group's ratio makes it."""

    group: Group
    layer: str

    def __str__(self) -> str:
        how = "" if self.group.scale == "same" else f", by {self.group.scale}"
        return f"with {self.group.name}{how}"
