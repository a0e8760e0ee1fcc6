"""Certifies members of a front: that each is at most the tradeoff worse than the dense model on unseen samples.

The members are tested one after the other, the least compressed first, until one fails: then all claims hold together
at the level of each (fixed sequence; Maurer, Hothorn and Lehmacher 1995).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tune_prune.results.paired_tests import PairedErrors, PairedMeans, PairedResamples
from tune_prune.tasks.metrics import Metric
from tune_prune.tasks.sample_values import FEWEST, Resamples, SampleValues


@dataclass(frozen=True)
class Claim:
    """That models are at most `tradeoff`, in the metric's unit, worse than the dense one on unseen samples, with the
    probability `level` that all that is certified holds."""

    tradeoff: float
    level: float

    def describe(self, metric: Metric) -> str:
        """The claim in words, without its subject: `at most 0.5 points more error than ..., with 95 % confidence`."""
        amount, sense = metric.format_tradeoff(self.tradeoff), "more" if metric.better == "lower" else "less"
        claim = f"at most {amount} {sense} {metric.name} than the dense model on unseen data"
        return f"{claim}, with {100 * self.level:g} % confidence"


@dataclass(frozen=True)
class Certificate:
    """What the test samples say of the claim that a member is at most the tradeoff worse than the dense model.

    `bound` is the upper confidence bound, of this member alone, of how much worse it is, in the metric's unit: negative
    where it is better. `certified` says that the claim holds, together with those of all less compressed members.
    `samples_needed` is the number of test samples that the claim would take; None where it holds, or where the member
    measured as bad as the limit or worse. `method` is the test in words, or why there is none: numbers are then None.
    """

    p_value: float | None
    bound: float | None
    certified: bool
    samples_needed: int | None
    method: str


Outcome = tuple[int, ...] | SampleValues | Resamples | str
"""What a model is of samples alone: the numbers of those that it gets wrong, or another metric; the metric of resamples
where it is no mean over samples; or why there is none."""

Paired = PairedErrors | PairedMeans | PairedResamples


def pair(pruned: Outcome, dense: Outcome, count: int, metric: Metric) -> Paired | str:
    """Pairs what two models are of the same `count` samples; or says why nothing can be tested."""
    match dense, pruned:
        case (str() as reason, _) | (_, str() as reason):
            return reason
        case tuple(), tuple():
            one, other = frozenset(pruned), frozenset(dense)
            return PairedErrors(len(one - other), len(other - one), count)
        case SampleValues(), SampleValues():
            if pruned.mean is not dense.mean:
                return f"{metric.name} is {pruned.mean.name} of one model's samples, {dense.mean.name} of the other's"
            if len(pruned.values) < FEWEST:
                return f"{len(pruned.values)} samples are too few for a bootstrap test, which takes {FEWEST}"
            return PairedMeans(pruned, dense, metric)
        case Resamples(), Resamples():
            if (pruned.measured, len(pruned.without)) != (dense.measured, len(dense.without)):
                return f"{metric.name} was measured of other resamples of one model than of the other"
            return PairedResamples(pruned, dense, metric)
        case (SampleValues() | Resamples(), SampleValues() | Resamples()):
            return f"{metric.name} is a mean over one model's samples, and none over the other's"
    raise TypeError(f"outcomes of two kinds: {type(pruned).__name__} and {type(dense).__name__}")


def certify(pairs: Iterable[Paired | str], tradeoff: float, level: float) -> list[Certificate]:
    """Tests the members of a front in order, the least compressed first, each against the dense model.

    A member is certified where its p-value is at most 1 - `level`, and those of all members before it are. Where a pair
    is a text it says why there is none; nothing after it is certified. The tradeoff is in the metric's unit.
    """
    made, holds = list[Certificate](), True
    for pair in pairs:
        if isinstance(pair, str):
            made.append(Certificate(None, None, False, None, f"none, {pair}"))
            holds = False
            continue
        found = pair.test(tradeoff, level)
        holds = holds and found.p_value <= 1 - level
        needed = None if holds else found.samples_needed
        made.append(Certificate(found.p_value, found.bound, holds, needed, found.method))
    return made
