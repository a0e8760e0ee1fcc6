"""Extends the front: a brief trial beyond its most compressed end, which refinement may then bring to the limit.

A sampler draws near what it knows to be good, and so hardly ever goes beyond the most compressed trial so far. A trial
that extends the front has the ratios of its end, but each layer keeps the same share less. It starts from that end.
"""

import math
from collections.abc import Callable, Mapping, Sequence

STEP = 1.25
"""How many times fewer weights such a trial leaves than the end of the front, where nothing has failed beyond."""

LEAST_STEP = 1.05
"""The same at least: nearer to the end, a trial says nothing new."""

Params = Mapping[str, object]
"""A trial's parameters under the study's names."""


def find_halfway(reached: float, failed: Sequence[float]) -> float:
    """How many times fewer weights are left halfway from a compression to the nearest beyond it that has `failed`.

    Halfway is in the logarithm of the factor. Infinite where nothing has failed beyond.
    """
    nearest = min((compression for compression in failed if compression > reached), default=1.0)
    return math.sqrt((1 - reached) / (1 - nearest)) if nearest < 1.0 else math.inf


def next_compression(reached: float, failed: Sequence[float]) -> float | None:
    """The compression to try beyond the one that is `reached`: at most halfway to the nearest that has `failed`.

    None where no place is left.
    """
    step = min(STEP, find_halfway(reached, failed))
    return 1 - (1 - reached) / step if step >= LEAST_STEP else None


def scale_kept(
    params: Params, bounds: Mapping[str, tuple[float, float]], compression: Callable[[Params], float], target: float
) -> dict[str, object] | None:
    """The parameters with all shares of kept weights scaled alike, within their `bounds`, to reach about `target`.

    `compression` says which compression parameters make. None where the bounds end below the target.
    """

    def scaled(scale: float) -> dict[str, object]:
        within = {
            name: min(max(scale * float(params[name]), lowest), highest)  # type: ignore[arg-type]
            for name, (lowest, highest) in bounds.items()
        }
        return {**params, **within}

    low, high = -20.0, 20.0  # of the scale's logarithm
    for _ in range(60):
        middle = (low + high) / 2
        if compression(scaled(math.exp(middle))) >= target:
            low = middle
        else:
            high = middle
    found = scaled(math.exp(low))
    return found if compression(found) >= target else None
