"""The phases of a search, as a space describes them, and the parts that it can do without."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Refinement:
    """How promising trials are refined: the `share` of the budget for refinements, and how they prune and train.

    A refinement starts from a recorded round with few removed weights. Its schedule is geometric, in so many `rounds`
    from the dense model on; its `steps` are spread evenly over the rounds that are left, and with `final_steps` over
    those before the last, which trains so many.
    """

    share: float = 0.0
    rounds: int = 12
    steps: int = 1000
    lr: float = 0.05
    final_steps: int | None = None

    @property
    def total_steps(self) -> int:
        """The steps of all rounds together."""
        return self.steps + (self.final_steps or 0)


@dataclass(frozen=True)
class InitialTrials:
    """How many levels of compression, by the layers' loss curves, are tried first, and between which factors."""

    trials: int = 16
    min_factor: float = 3.0
    max_factor: float = 100.0


LEAST_ROUNDS = 4
"""Gradual pruning in fewer rounds is left out."""

MOST_STEP = 2.0
"""The most times fewer weights that a round of gradual pruning leaves, where a small budget holds fewer rounds."""


@dataclass(frozen=True)
class GradualPruning:
    """Gradual pruning by one threshold for all layers: `steps` of training in all, none of it where that is 0.

    It takes so many `rounds` from the dense model to `max_factor`. Each is a trial of its own, starts where the one
    before ended and leaves the same share of its weights. From one to the next, training grows by the same factor, so
    that the last trains `growth` times as long as the first. It ends at the limit.
    """

    rounds: int = 16
    max_factor: float = 100.0
    steps: int = 0
    lr: float = 0.1
    growth: float = 1.0

    @property
    def step_factor(self) -> float:
        """How many times fewer weights a round leaves than the one before."""
        return float(self.max_factor ** (1 / self.rounds))

    @property
    def round_steps(self) -> list[int]:
        """The steps of training of each round."""
        shares = [self.growth ** (place / max(1, self.rounds - 1)) for place in range(self.rounds)]
        return [max(1, round(self.steps * share / sum(shares))) for share in shares]

    def steps_to(self, factor: float) -> int:
        """The steps of the round that ends at about a factor."""
        place = round(math.log(factor) / math.log(self.step_factor))
        return self.round_steps[min(max(place, 1), self.rounds) - 1]

    def within(self, trials: int, share: float = 1.0) -> "GradualPruning":
        """The same with so many trials at most, in larger rounds, and a share of the steps.

        A round leaves at least one of `MOST_STEP` weights, and so fewer rounds may end before `max_factor`. Too few
        have no steps at all.
        """
        rounds = min(self.rounds, trials)
        if rounds < min(LEAST_ROUNDS, self.rounds):
            return replace(self, steps=0)
        far = min(self.max_factor, MOST_STEP**rounds)
        return replace(self, rounds=rounds, max_factor=far, steps=int(min(1.0, share) * self.steps))


@dataclass(frozen=True)
class Features:
    """Parts of a search that save compute; each can be switched off to measure what it is worth.

    `learn_from_rounds`: the sampler learns from every round, not from the last ones alone. `early_stopping`: trials
    that promise nothing are stopped. `warm_start`: trials start from recorded rounds whose masks contain theirs.
    """

    learn_from_rounds: bool = True
    early_stopping: bool = True
    warm_start: bool = True
