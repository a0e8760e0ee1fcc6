"""The front of a search: the points that are reported, and their metrics on test images."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tune_prune.results import pareto
from tune_prune.results.constraints import NO_CONSTRAINTS, Constraints
from tune_prune.results.records import PointRecord, TrialRecord

BEST_CONF = "best.conf"
"""The file with the configuration of the most compressed member of the front."""

CERTIFIED_CONF = "certified.conf"
"""The file with the configuration of the most compressed member that is certified."""

CLOSEST_CONF = "closest.conf"
"""Where nothing keeps the constraints, the file with the configuration of the point that comes closest."""


@dataclass(frozen=True)
class Member:
    """A member of the front: a point and its trial; ids are "001", "002", ... ascending in compression."""

    id: str
    record: TrialRecord
    point: PointRecord

    @property
    def conf(self) -> str:
        """The path of its configuration, relative to the run directory."""
        return f"confs/{self.id}.conf"

    @property
    def checkpoint(self) -> str | None:
        """The path of its weights, relative to the run directory; None where the round's weights were not kept."""
        return None if self.point.checkpoint is None else f"checkpoints/{self.id}.safetensors"


@dataclass(frozen=True)
class TestResult:
    """The metric on the test images, and the ends of its 95 % interval: of the error Wilson's, in percent.

    `low` and `high` are None where no interval is known. `refit`: the member was refitted before it was tested.
    `method` says in words how the interval of another metric was found, or why there is none. `further` are the further
    metrics on the test images, by column.
    """

    __test__ = False  # pytest takes classes whose names begin with Test for tests

    metric: float
    low: float | None
    high: float | None
    refit: bool = False
    method: str = ""
    further: Mapping[str, float] = field(default_factory=dict)


def find_front(
    records: Iterable[TrialRecord],
    constraints: Constraints = NO_CONSTRAINTS,
    is_kept: Callable[[PointRecord], bool] = lambda point: True,
) -> list[Member]:
    """Finds the feasible points that no other feasible one dominates in compression, metric and the other objectives.

    Points of all rounds of all trials count, whatever the trial's state, if they are kept. The front is ascending in
    compression, and has of equal points the one of the earliest trial.
    """
    feasible = [(record, point) for record, point in _list_points(records) if point.feasible]
    feasible = [(record, point) for record, point in feasible if is_kept(point)]
    chosen = pareto.front([constraints.values(p.compression, p.judged, p.costs) for _, p in feasible])
    return [Member(f"{number:03d}", *feasible[i]) for number, i in enumerate(chosen, start=1)]


def most_compressed(members: Sequence[Member]) -> Member | None:
    """The most compressed member; None where there are no members."""
    return max(members, key=lambda member: member.point.compression, default=None)


def find_closest(records: Iterable[TrialRecord], constraints: Constraints = NO_CONSTRAINTS) -> Member | None:
    """Finds the point to show where none is feasible: of the best validation metric, then the most compressed.

    Points that keep the limits on costs and further metrics come first; where no point does, the one that exceeds them
    least is taken. None where no point has a finite metric.
    """

    def rank(pair: tuple[TrialRecord, PointRecord]) -> tuple[float, float, float]:
        point = pair[1]
        excess = max([0.0, *constraints.excesses(point.costs).values()])
        return excess, constraints.metric.cost(point.val_metric), -point.compression

    finite = [pair for pair in _list_points(records) if math.isfinite(pair[1].val_metric)]
    return Member("001", *min(finite, key=rank)) if finite else None


def _list_points(records: Iterable[TrialRecord]) -> list[tuple[TrialRecord, PointRecord]]:
    """Lists all points with their trials: by trial number, then by round."""
    in_order = sorted(records, key=lambda record: record.trial)
    return [(record, point) for record in in_order for point in record.points]
