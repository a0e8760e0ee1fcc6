"""What removing a layer's weights is thought to cost: power laws, and the ratios that spend a loss best over layers.

A layer's curve is the rise of the loss over the share it keeps, a * keep^-b. The shares that keep fewest weights at a
given total rise of the loss are those at which every layer asks the same price for its next weight (Lagrange).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
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


def keeps(curves: Mapping[str, Curve], kept: float) -> dict[str, float]:
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
