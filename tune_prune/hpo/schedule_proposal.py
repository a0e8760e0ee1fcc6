"""Proposes how trials train in the time that a search has: how many trials, for how many steps, in which batches."""

from collections.abc import Callable
from dataclasses import dataclass, replace

TRIALS, LEAST_TRIALS = 100, 12
"""Trials of a search where time allows for them, and the fewest: below, longer trials gain more than further ones."""

LEAST_STEPS, MOST_STEPS = 20, 300
"""The fewest steps after a round, and the most of a search that has time for few trials."""

STEPS_OF_SHARE = 90
"""Steps of a refinement, as a multiple of a trial's steps after a round; so LeNet-5's were found to be best."""

FEW_TRIALS_ROUNDS = 8
"""Rounds of a trial where there is time for a few: each makes a point of the front."""

MOST_GRADUAL_ROUNDS, LEAST_GRADUAL_ROUNDS = 16, 4
"""Rounds of gradual pruning, which follow one another, and the fewest that are worth it."""

CHAIN_SHARE, CHAIN_TIME = 0.5, 0.8
"""The share of all steps that gradual pruning has, and the share of the time that it may take on one processor."""

BATCH_SIZES, LEAST_EPOCH = (128, 64, 32), 40
"""Batch sizes, the first of which has so many steps in an epoch; a small data set needs smaller batches."""

ENOUGH_STEPS = 5000
"""Steps for which a search should have time, in smaller batches where larger ones leave fewer."""

BRIEF_SHARE, LONG_SHARE = 0.1, 0.4
"""The share of refinements where most trials train briefly, and where there are few trials."""


@dataclass(frozen=True)
class Schedule:
    """How many trials a search has, the steps after a round of each, and the share and the steps of refinements.

    A trial has two `rounds`, the second trained twice as long, or `FEW_TRIALS_ROUNDS`, each of which trains alike. Of
    the trials, `chain_rounds` are rounds of gradual pruning, which train for `chain_steps` steps on average.
    """

    trials: int
    steps: int
    share: float
    refine_steps: int
    rounds: int = 2
    chain_rounds: int = 0
    chain_steps: int = 0

    @property
    def is_short(self) -> bool:
        """Whether time allows for few trials."""
        return self.share != BRIEF_SHARE

    @property
    def refine_share(self) -> float:
        """The share of all trials, those of gradual pruning too, that refine others."""
        return self.share * (1 - self.chain_rounds / self.trials)

    def describe(self) -> str:
        """The schedule in words, to begin a sentence."""
        last = self.steps if self.rounds == FEW_TRIALS_ROUNDS else 2 * self.steps
        steps = f"{self.steps} steps after a round, {last} after the last"
        said = f"Trials: about {self.trials} of {self.rounds} rounds, {steps}"
        if self.share:
            said += f"; {self.refine_share:.0%} of them refine others, for {self.refine_steps} steps"
        if self.chain_rounds:
            together = self.chain_rounds * self.chain_steps
            said += f"; {self.chain_rounds} of them prune gradually, for {together} steps together"
        return said


def propose_gradual(steps: float, serial: float, epoch: int, trials: int | None = None) -> Schedule:
    """A schedule with gradual pruning where time allows for it; `serial` steps can follow one another in the time.

    Half of the steps are its own, if a round then trains no longer than a refinement, and the rest is spent as
    `propose_schedule` says.
    """
    long = min(CHAIN_SHARE * steps, CHAIN_TIME * serial)
    rounds = min(MOST_GRADUAL_ROUNDS, int(long / LEAST_STEPS), MOST_GRADUAL_ROUNDS if trials is None else trials // 2)
    rest = propose_schedule(steps - long, epoch, None if trials is None else trials - rounds)
    rounds = min(rounds, rest.trials)
    if rounds < LEAST_GRADUAL_ROUNDS or rest.rounds == FEW_TRIALS_ROUNDS:
        return propose_schedule(steps, epoch, trials)
    each = min(int(long / rounds), rest.refine_steps)
    return replace(rest, trials=rest.trials + rounds, chain_rounds=rounds, chain_steps=each)


def propose_schedule(steps: float, epoch: int, trials: int | None = None) -> Schedule:
    """How to spend so many training steps in all, on so many `trials` where that is said; an `epoch` has so many steps.

    A trial has two rounds, the second trained twice as long. Where time allows for TRIALS trials of LEAST_STEPS, most
    of them train briefly, and a tenth refines for long; otherwise there are fewer trials, of a third of an epoch, and
    more of them refine: trials of much less than an epoch say little of large networks. Where time does not allow for
    LEAST_TRIALS of those, there are so many shorter ones. Where even these would have fewer than LEAST_STEPS, trials
    prune gradually, so that each makes a front of its own.
    """
    wanted = trials or TRIALS
    each = min(int(steps / (wanted * (3 * (1 - BRIEF_SHARE) + STEPS_OF_SHARE * BRIEF_SHARE))), epoch)
    if each >= LEAST_STEPS and wanted >= TRIALS:
        return Schedule(wanted, each, BRIEF_SHARE, STEPS_OF_SHARE * each)
    each = max(LEAST_STEPS, min(MOST_STEPS, epoch // 3))
    of_each = 3 * (1 - LONG_SHARE) + 12 * LONG_SHARE  # the steps of a trial, on average, for each step after a round
    if trials is not None:
        each = max(LEAST_STEPS, min(each, int(steps / (trials * of_each))))
    found = trials or min(int(steps / (each * of_each)), TRIALS)
    if trials is None and found < LEAST_TRIALS:
        found, each = LEAST_TRIALS, int(steps / (LEAST_TRIALS * of_each))
    if each < LEAST_STEPS:
        return Schedule(max(1, int(steps / (FEW_TRIALS_ROUNDS * LEAST_STEPS))), LEAST_STEPS, 0.0, 1, FEW_TRIALS_ROUNDS)
    return Schedule(found, each, LONG_SHARE, 12 * each)


def list_batch_sizes(count_steps: Callable[[int], int]) -> list[int]:
    """Those of BATCH_SIZES of which an epoch has LEAST_EPOCH steps, or the last; `count_steps` counts those of a size.

    The first alone where the data decides the size of its batches.
    """
    if len({count_steps(size) for size in BATCH_SIZES}) == 1:
        return [BATCH_SIZES[0]]
    return [size for size in BATCH_SIZES if count_steps(size) >= LEAST_EPOCH] or [BATCH_SIZES[-1]]
