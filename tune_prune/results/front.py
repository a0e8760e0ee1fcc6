"""Which of a search's points are worth reporting, and what test images say about them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tune_prune.results import pareto
from tune_prune.results.constraints import NO_CONSTRAINTS, Constraints
from tune_prune.results.records import PointRecord, TrialRecord


@dataclass(frozen=True)
class Member:
    """A point that is reported, with its trial; ids are "001", "002", ... ascending in compression."""

    id: str
    record: TrialRecord
    point: PointRecord

    @property
    def conf(self) -> str:
        """Where its configuration goes, relative to the run directory."""
        return f"confs/{self.id}.conf"

    @property
    def checkpoint(self) -> str | None:
        """Where its weights go, relative to the run directory; None where the round's were not kept."""
        return None if self.point.checkpoint is None else f"checkpoints/{self.id}.safetensors"


@dataclass(frozen=True)
class TestResult:
    """Error on the test images in percent, and the ends of its 95 % Wilson interval; whether it was refitted before."""

    __test__ = False  # pytest takes what begins with Test for a test class

    error: float
    low: float
    high: float
    refit: bool = False


def find_front(records: Iterable[TrialRecord], limits: Constraints = NO_CONSTRAINTS) -> list[Member]:
    """The feasible points, of all rounds of all trials whatever their state, that no other feasible one dominates.

    That is in compression, error and the costs that are objectives.

    Ascending in compression; of equal points the one of the earliest trial.
    """
    found = [(record, point) for record, point in _every_point(records) if point.feasible]
    chosen = pareto.front([limits.values(p.compression, p.val_error, p.costs) for _, p in found])
    return [Member(f"{number:03d}", *found[i]) for number, i in enumerate(chosen, start=1)]


def most_compressed(members: Sequence[Member]) -> Member | None:
    """The most compressed member; None of none."""
    return max(members, key=lambda member: member.point.compression, default=None)


def find_closest(records: Iterable[TrialRecord], limits: Constraints = NO_CONSTRAINTS) -> Member | None:
    """What to show where no point is feasible: the lowest validation error, of equal ones the most compressed.

    Where limits on costs are kept by none, it is the point that oversteps them least. None where no point has a finite
    error.
    """

    def rank(found: tuple[TrialRecord, PointRecord]) -> tuple[float, float, float]:
        point = found[1]
        over = [point.costs[name] / limit - 1 for name, limit in limits.at_most.items()]
        return max(0.0, *over) if over else 0.0, point.val_error, -point.compression

    found = [pair for pair in _every_point(records) if math.isfinite(pair[1].val_error)]
    return Member("001", *min(found, key=rank)) if found else None


def _every_point(records: Iterable[TrialRecord]) -> list[tuple[TrialRecord, PointRecord]]:
    """Trial by trial, in the order of their numbers, round by round."""
    in_order = sorted(records, key=lambda record: record.trial)
    return [(record, point) for record in in_order for point in record.points]
