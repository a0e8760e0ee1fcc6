"""The outcome of a search: computed once, then written, printed and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tune_prune.pruning.sensitivity import SensitivityResult
from tune_prune.results.certificate import Certificate, Claim
from tune_prune.results.confidence import Confirmation
from tune_prune.results.forecast import Forecast, make_forecast
from tune_prune.results.front import Member, TestResult, find_closest, most_compressed
from tune_prune.results.front_tracker import FrontTracker
from tune_prune.results.records import TrialRecord
from tune_prune.results.run_info import RunInfo


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to: its records and its front, `members` ascending in compression.

    `tested`, `confirmed` and the `certificates` of a `claim` are by member id; `dense_test` is the dense model's test
    result, None where the test images were not read. `hardest` is the layer with the highest loss when pruned alone as
    in the closest point, where no point is feasible. Seconds are those of all processes of the run: wall-clock, and CPU
    with all workers.
    """

    info: RunInfo
    records: Sequence[TrialRecord]
    members: Sequence[Member]
    tested: Mapping[str, TestResult] = field(default_factory=dict)
    dense_test: TestResult | None = None
    confirmed: Mapping[str, Confirmation] = field(default_factory=dict)
    claim: Claim | None = None
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    hardest: SensitivityResult | None = None
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @cached_property
    def best(self) -> Member | None:
        """The most compressed member of the front; None where no point is feasible."""
        return most_compressed(self.members)

    @cached_property
    def is_tested(self) -> bool:
        """Whether the dense model and all members were tested, and certificates made where they were asked for."""
        tested = self.dense_test is not None and all(member.id in self.tested for member in self.members)
        return tested and (self.claim is None or len(self.certificates) == len(self.members))

    @cached_property
    def certified(self) -> Member | None:
        """The most compressed member that is certified; None where none is."""
        certified = {id_ for id_, made in self.certificates.items() if made.certified}
        return most_compressed([member for member in self.members if member.id in certified])

    @cached_property
    def closest(self) -> Member | None:
        """The point closest to being feasible, where none is; else None, as where no round has ended."""
        return None if self.members else find_closest(self.records, self.info.limits)

    @cached_property
    def smallest_tradeoff(self) -> float | None:
        """The smallest tradeoff, in the metric's unit, that the closest point would keep.

        None where there is no such point, and where it violates a limit on a cost, which no tradeoff changes.
        """
        if self.closest is None or not self.closest.point.within:
            return None
        return self.info.metric.tradeoff(self.info.dense_metric, self.closest.point.val_metric)

    @cached_property
    def interval_method(self) -> str:
        """How the intervals of test values were found, or why there are none; empty for the error, where it is known.

        Test results of several methods, as where one is a NaN, name each.
        """
        results = [self.dense_test, *self.tested.values()]
        return "; ".join(dict.fromkeys(result.method for result in results if result and result.method))

    @cached_property
    def certify_method(self) -> str:
        """How members were tested for certificates, or why they could not be; empty where none were asked for."""
        return "; ".join(dict.fromkeys(made.method for made in self.certificates.values()))

    def describe_certificates(self) -> list[str]:
        """The certificates in lines: what is certified, or what it would take; none where none were asked for."""
        if self.claim is None or not self.certificates:
            return []
        claim = self.claim.describe(self.info.metric)
        if self.certified:
            before = "" if self.certified is self.members[0] else " and all before it"
            lines = [f"certified: {self.certified.id}, {self.certified.point.factor:.1f}x{before}: {claim}"]
        else:
            lines = [f"nothing is certified to have {claim}"]
        first = next((id_ for id_, made in self.certificates.items() if not made.certified), None)
        if first and (needed := self.certificates[first].samples_needed):
            lines.append(f"to certify {first} would take about {needed:,} test samples")
        return [*lines, f"certificates: {self.certify_method}"]

    @cached_property
    def forecast(self) -> Forecast | None:
        """What the front is expected to be after as much training again; None where too little was seen."""
        tracker = FrontTracker(self.info.limits)
        for record in self.records:
            tracker.add(record)
        return make_forecast(tracker.history)

    def describe_best(self) -> list[str]:
        """What was found in lines: the most compressed member, or how far the closest point is from being feasible."""
        info, closest = self.info, self.closest
        if self.best:
            measured = info.metric.describe(self.best.point.val_metric, "validation")
            return [f"most compressed: {self.best.point.factor:.1f}x at {measured}"]
        if closest is None:
            return ["no round ended"]
        if self.smallest_tradeoff is None:
            advice = "other ratios, or other limits" if info.dense_further else "higher ratios, or more"
            costs = " and ".join(f"{key} of {closest.point.costs[key]:.4g}" for key in (*info.at_most, *info.at_least))
            return [f"no point keeps {info.limits.describe_limits()}; the nearest has {costs}: allow {advice}"]
        lines = [
            f"no point keeps the tradeoff of {info.metric.format_tradeoff(info.acc_tradeoff)}; the best found, "
            f"{closest.point.factor:.1f}x at {info.metric.format(closest.point.val_metric)}, would keep one of "
            f"{self.smallest_tradeoff:g}"
        ]
        if self.hardest:
            job = self.hardest.job
            effect = f"by {job.ratio:g}, and not retrained, it makes {info.metric.format(self.hardest.val_metric)}"
            lines.append(f"layer {job.layer} stands most in the way: pruned alone {effect}")
        return lines

    def describe_forecast(self) -> list[str]:
        """The forecast in a line; none where too little was seen."""
        return [] if self.forecast is None else [f"forecast {self.forecast.describe()}"]

    @cached_property
    def hypervolume(self) -> float:
        """The share in [0, 1] of the area from the limit to the ideal, up to 1000x, that feasible points dominate."""
        cost = self.info.metric.cost
        feasible = [(p.compression, cost(p.judged)) for record in self.records for p in record.points if p.feasible]
        return self.info.limits.hypervolume(feasible)
