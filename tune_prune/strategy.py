"""How a search spends its budget: what is tried first, what is finished, and what is spared."""

from dataclasses import dataclass


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
