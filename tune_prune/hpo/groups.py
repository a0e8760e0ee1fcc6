"""Groups of layers that share one ratio, and how a group's ratio is spread over its layers.

A group can spread its ratio by the layers' loss curves. A curve is the rise of the loss over the share k that a layer
keeps, a * k^-b. At the fewest weights for a given total rise, every layer's curve has the same slope in loss per weight
(Lagrange): the price of a weight.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

SCALES = ("same", "erk", "sensitivity")
"""How a group's ratio is spread over its layers."""

MAX_RATIO = 0.9999
"""The highest ratio of a layer in a group: an uneven spread would leave some layers without a weight."""

Shape = tuple[int, ...]
"""The shape of a layer's weight."""


@dataclass(frozen=True)
class LossCurve:
    """The rise of the loss, in nats, where one layer alone is pruned: scale * keep^-power.

    The layer has so many `weights`, of which a share from `low` to `high` may be kept.
    """

    weights: int
    scale: float
    power: float
    low: float
    high: float

    def share_at(self, price: float) -> float:
        """The share to keep at a price in nats per weight: the curve's slope there is the price, within the bounds."""
        free = math.pow(self.scale * self.power / (price * self.weights), 1 / (self.power + 1))
        return min(max(free, self.low), self.high)


def allocate_weights(
    curves: Mapping[str, LossCurve], kept: float, count: Callable[[Mapping[str, float]], float] | None = None
) -> dict[str, float]:
    """The share of each layer to keep, so that the loss rises least where about `kept` weights are kept in all.

    `count` counts the weights that shares by layer keep, by default each layer's own. Where the curves' bounds do not
    allow so many, it is as near as they allow.
    """

    def shares(log_price: float) -> dict[str, float]:
        return {layer: curve.share_at(math.exp(log_price)) for layer, curve in curves.items()}

    def count_own(kept_shares: Mapping[str, float]) -> float:
        return sum(curve.weights * kept_shares[layer] for layer, curve in curves.items())

    low, high = -100.0, 100.0  # of the price's logarithm
    for _ in range(100):
        middle = (low + high) / 2
        if (count or count_own)(shares(middle)) > kept:
            low = middle
        else:
            high = middle
    return shares(high)


@dataclass(frozen=True)
class Group:
    """Layers, by their weights' shapes, that share one ratio: the share of all their weights that is removed.

    `scale` spreads it. "same": each layer has it. "erk": the share that a layer keeps is proportional to the sum of its
    dimensions over their product, and at most 1, so that small layers keep more (Evci et al. 2020, sec. 3).
    "sensitivity": by the layers' `curves`, at the same price in every layer.
    """

    name: str
    scale: str
    shapes: Mapping[str, Shape]
    curves: Mapping[str, LossCurve] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, int]:
        """The number of weights of each layer."""
        return {layer: math.prod(shape) for layer, shape in self.shapes.items()}

    def ratios(self, ratio: float) -> dict[str, float]:
        """The ratio of each layer, from the group's ratio."""
        if self.scale == "same":
            return dict.fromkeys(self.shapes, ratio)
        kept = (1 - ratio) * sum(self.weights.values())
        if self.scale == "erk":
            shares = self._allocate_erk(kept)
        else:
            shares = allocate_weights({layer: self.curves[layer] for layer in self.shapes}, kept)
        return {layer: min(max(0.0, 1 - share), MAX_RATIO) for layer, share in shares.items()}

    def ratio(self, ratios: Mapping[str, float]) -> float:
        """The group's ratio, from the ratios of its layers."""
        distinct = {ratios[layer] for layer in self.shapes}
        if len(distinct) == 1:
            return distinct.pop()  # exactly
        removed = math.fsum(ratios[layer] * weights for layer, weights in self.weights.items())
        return removed / sum(self.weights.values())

    def _allocate_erk(self, kept: float) -> dict[str, float]:
        """The share of each layer to keep; a layer whose share would exceed 1 keeps all, the others share the rest."""
        density = {layer: sum(shape) / math.prod(shape) for layer, shape in self.shapes.items()}
        full: set[str] = set()
        while True:
            rest = {layer: n for layer, n in self.weights.items() if layer not in full}
            left = kept - sum(self.weights[layer] for layer in full)
            scale = left / sum(density[layer] * n for layer, n in rest.items()) if rest else 0.0
            over = {layer for layer in rest if scale * density[layer] > 1}
            if not over:
                return {layer: 1.0 if layer in full else scale * density[layer] for layer in self.shapes}
            full |= over


@dataclass(frozen=True)
class GroupedRatio:
    """A layer's ratio that the ratio of its group decides."""

    group: Group
    layer: str

    def __str__(self) -> str:
        how = "" if self.group.scale == "same" else f", by {self.group.scale}"
        return f"with {self.group.name}{how}"
