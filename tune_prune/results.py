"""From records to the tables of a run: errors in percent, compression in [0, 1], seconds of wall-clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pandas import DataFrame

from tune_prune.confidence import Confirmed
from tune_prune.front import Member, Tested
from tune_prune.limits import COSTS, Limits
from tune_prune.records import PointRecord, TrialRecord

CONFIRMED = ("confirm_mean", "confirm_spread", "confirm_high", "confirm_holds")
"""What `--confirm` adds to a member: the mean of the repetitions' validation errors and their standard deviation, in
percent, the 95 % bound of the mean, and whether that keeps the tradeoff."""

NOTHING: Mapping[str, Confirmed] = {}


@dataclass(frozen=True)
class RunInfo:
    """What summary.json says about the run itself: `budget` in trials, `time_budget` in seconds, None where unlimited.

    `acc_tradeoff` in percentage points, `dense_val_error` in percent; `shapes` of the layers' weights in the
    model's order; `at_most` are limits on costs, `objectives` the costs that are minimised (`limits.py`); `command` is
    how the run was started.
    """

    space: str
    model: str
    data: str
    seed: int
    budget: int | None
    concurrency: int
    device: str
    sampler: str
    acc_tradeoff: float
    dense_val_error: float
    shapes: Mapping[str, tuple[int, ...]]
    command: str
    versions: dict[str, str]
    time_budget: float | None = None
    at_most: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The layers, in the model's order."""
        return tuple(self.shapes)

    @property
    def totals(self) -> dict[str, int]:
        """The weights of each layer."""
        return {label: math.prod(shape) for label, shape in self.shapes.items()}

    @property
    def limit(self) -> float:
        """The highest validation error, in percent, that keeps the tradeoff; 0.86 and 0.5 make it 1.36 exactly."""
        return rounded_up(self.dense_val_error + self.acc_tradeoff)

    @property
    def limits(self) -> Limits:
        """What a point must keep, and what is better about it."""
        return Limits(self.limit, self.at_most, self.objectives)


def rounded_up(value: float) -> float:
    """The next whole billionth, beyond which a value is noise: 0.86 + 0.5 is 1.3599999999999999, a hair too little.

    Up, since what is as great as a limit must stay within it: a third of a percent is no whole number of billionths.
    """
    return math.ceil(value * 1e9 - 1e-3) / 1e9


def points_table(records: Sequence[TrialRecord], labels: Sequence[str]) -> DataFrame:
    """points.csv: every round of every trial, with what it did to the layers of these labels."""
    rows = [
        {
            "trial": record.trial,
            "round": point.round,
            "compression": point.compression,
            "factor": point.factor,
            "val_error": point.val_error,
            "feasible": point.feasible,
            **_layers(record, point, labels),
            "seconds": point.seconds,
            "val_loss": point.val_loss,
            **_costs(point),
        }
        for record in records
        for point in record.points
    ]
    head = ["trial", "round", "compression", "factor", "val_error", "feasible"]
    return _table(rows, [*head, *_layer_columns(labels), "seconds", "val_loss", *COSTS])


def trials_table(records: Sequence[TrialRecord]) -> DataFrame:
    """trials.csv: a row a trial; a column a parameter that any trial has; the last point, empty where there is none."""
    measured = ["compression", "factor", "val_error", "feasible"]
    rows = [
        {
            **record.params,  # first, so that no parameter's name can hide a column below
            "trial": record.trial,
            "state": record.state,
            **{name: getattr(record.last, name) if record.points else None for name in measured},
            "reason": record.reason,
            "kind": record.kind,
            "finishes": record.finishes,
            "parent": record.parent,
            "parent_round": record.parent_round,
            "rounds_done": record.last.round if record.points else 0,
            "seconds": record.seconds,
            "cpu_seconds": record.cpu_seconds,
        }
        for record in records
    ]
    head = ["trial", "state"]
    tail = [*measured, "reason", "kind", "finishes", "parent", "parent_round", "rounds_done", "seconds", "cpu_seconds"]
    params = dict.fromkeys(name for record in records for name in record.params)
    return _table(rows, [*head, *(name for name in params if name not in {*head, *tail}), *tail])


def pareto_table(
    members: Sequence[Member], tested: Mapping[str, Tested], info: RunInfo, confirmed: Mapping[str, Confirmed] = NOTHING
) -> DataFrame:
    """pareto.csv: the front; what was tested or confirmed, by member id, is empty where it was not."""
    rows = [entry(member, tested, confirmed) | _layers(member.record, member.point, info.labels) for member in members]
    head = ["id", "trial", "round", "compression", "factor", "val_error"]
    tail = ["test_error", "test_error_low", "test_error_high", "conf", "checkpoint", "refit", *CONFIRMED, *COSTS]
    return _table(rows, [*head, *tail, *_layer_columns(info.labels)])


def entry(
    member: Member, tested: Mapping[str, Tested], confirmed: Mapping[str, Confirmed] = NOTHING
) -> dict[str, object]:
    """A member as the summary and pareto.csv list it."""
    test, again = tested.get(member.id), confirmed.get(member.id)
    values = (again.mean, again.spread, again.high, again.holds) if again else (None,) * len(CONFIRMED)
    return {
        "id": member.id,
        "trial": member.record.trial,
        "round": member.point.round,
        "compression": member.point.compression,
        "factor": member.point.factor,
        "val_error": member.point.val_error,
        "test_error": test.error if test else None,
        "test_error_low": test.low if test else None,
        "test_error_high": test.high if test else None,
        "conf": member.conf,
        "checkpoint": member.checkpoint,
        "refit": test.refit if test else None,
        **dict(zip(CONFIRMED, values, strict=True)),
        **_costs(member.point),
    }


def _costs(point: PointRecord) -> dict[str, object]:
    return {name: point.costs.get(name) for name in COSTS}


def _layer_columns(labels: Sequence[str]) -> list[str]:
    return [f"ratio/{label}" for label in labels] + [f"pruner/{label}" for label in labels]


def _layers(record: TrialRecord, point: PointRecord, labels: Sequence[str]) -> dict[str, object]:
    """Ratio and pruner of every layer: 0.0 and "" where it is not pruned."""
    ratios = {f"ratio/{label}": point.ratios.get(label, 0.0) for label in labels}
    return ratios | {f"pruner/{label}": record.pruners.get(label, "") for label in labels}


def _table(rows: list[dict[str, object]], columns: list[str]) -> DataFrame:
    # as objects, else an integer column with an empty cell would become floats: parent 3 written as 3.0
    return DataFrame(rows, columns=columns, dtype=object)
