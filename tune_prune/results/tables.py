"""The tables of a run, made from its records; compression in [0, 1], seconds of wall-clock."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from pandas import DataFrame, Series

from tune_prune.results.certificate import Certificate
from tune_prune.results.confidence import Confirmation
from tune_prune.results.constraints import COSTS, MEASURED_LATENCY
from tune_prune.results.front import Member, TestResult
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.tasks.metrics import ERROR, Metric

NOT_CONFIRMED: Mapping[str, Confirmation] = {}
NOT_CERTIFIED: Mapping[str, Certificate] = {}

CERTIFY_COLUMNS = ("certify_p", "certify_bound", "certified", "samples_needed")
"""The columns of `--certify`, where it was asked for: the p-value, the bound of how much worse the member is than the
dense model, whether it is certified, and how many test samples that would take where it is not."""


def confirm_columns(metric: Metric) -> tuple[str, str, str, str]:
    """The columns of `--confirm`: mean and standard deviation of the validation metrics of the repetitions, the 95 %
    bound of the mean on its worse side, and whether that keeps the tradeoff."""
    bound = "confirm_high" if metric.better == "lower" else "confirm_low"
    return "confirm_mean", "confirm_spread", bound, "confirm_holds"


def points_table(records: Sequence[TrialRecord], labels: Sequence[str], metric: Metric = ERROR) -> DataFrame:
    """points.csv: a row a round of every trial, with the ratio and pruner of each of these layers."""
    rows = [
        {
            "trial": record.trial,
            "round": point.round,
            "compression": point.compression,
            "factor": point.factor,
            metric.val: point.val_metric,
            "feasible": point.feasible,
            **_layers(record, point, labels),
            "seconds": point.seconds,
            "val_loss": point.val_loss,
            **_estimates(point, metric),
            **_costs(point),
        }
        for record in records
        for point in record.points
    ]
    head = ["trial", "round", "compression", "factor", metric.val, "feasible"]
    further = list_further(point for record in records for point in record.points)
    tail = ["seconds", "val_loss", *estimate_columns(metric), *COSTS, *further]
    return _table(rows, [*head, *_layer_columns(labels), *tail])


def trials_table(records: Sequence[TrialRecord], metric: Metric = ERROR) -> DataFrame:
    """trials.csv: a row a trial, a column a parameter of any trial, and the last point, empty where there is none."""
    measured = ["compression", "factor", metric.val, "feasible"]
    further = list_further(point for record in records for point in record.points)
    rows = [
        {
            **record.params.to_columns(),  # first, so that no parameter's name can hide a column below
            "trial": record.trial,
            "state": record.state,
            **dict(zip(measured, _last_measures(record), strict=True)),
            "reason": record.reason,
            "kind": record.kind,
            "refines": record.refines,
            "parent": record.parent,
            "parent_round": record.parent_round,
            "rounds_done": record.last.round if record.points else 0,
            "seconds": record.seconds,
            "cpu_seconds": record.cpu_seconds,
            **{name: record.last.costs.get(name) if record.points else None for name in further},
        }
        for record in records
    ]
    head = ["trial", "state"]
    tail = [*measured, "reason", "kind", "refines", "parent", "parent_round", "rounds_done", "seconds", "cpu_seconds"]
    tail += further
    params = dict.fromkeys(name for record in records for name in record.params.to_columns())
    return _table(rows, [*head, *(name for name in params if name not in {*head, *tail}), *tail])


def pareto_table(
    members: Sequence[Member],
    tested: Mapping[str, TestResult],
    info: RunInfo,
    confirmed: Mapping[str, Confirmation] = NOT_CONFIRMED,
    certificates: Mapping[str, Certificate] = NOT_CERTIFIED,
) -> DataFrame:
    """pareto.csv: a row a member of the front; cells of what was not tested or not confirmed are empty."""
    metric = info.metric
    rows = [
        member_row(member, tested, confirmed, metric, certificates) | _layers(member.record, member.point, info.labels)
        for member in members
    ]
    head = ["id", "trial", "round", "compression", "factor", metric.val]
    test = [metric.test, f"{metric.test}_low", f"{metric.test}_high"]
    further = [name for val in info.dense_further for name in (val, _on_test(val))]
    tail = [*test, "conf", "checkpoint", "refit", *confirm_columns(metric), *estimate_columns(metric), *COSTS, *further]
    tail += [MEASURED_LATENCY] if any(MEASURED_LATENCY in member.point.costs for member in members) else []
    tail += CERTIFY_COLUMNS if certificates else ()
    return _table(rows, [*head, *tail, *_layer_columns(info.labels)])


def member_row(
    member: Member,
    tested: Mapping[str, TestResult],
    confirmed: Mapping[str, Confirmation] = NOT_CONFIRMED,
    metric: Metric = ERROR,
    certificates: Mapping[str, Certificate] = NOT_CERTIFIED,
) -> dict[str, object]:
    """The entry of a member in summary.json and pareto.csv; tests, confirmations, certificates are by member id."""
    test, again, made = tested.get(member.id), confirmed.get(member.id), certificates.get(member.id)
    values = (again.mean, again.spread, again.bound, again.holds) if again else (None,) * 4
    return {
        "id": member.id,
        "trial": member.record.trial,
        "round": member.point.round,
        "compression": member.point.compression,
        "factor": member.point.factor,
        metric.val: member.point.val_metric,
        metric.test: test.metric if test else None,
        f"{metric.test}_low": test.low if test else None,
        f"{metric.test}_high": test.high if test else None,
        "conf": member.conf,
        "checkpoint": member.checkpoint,
        "refit": test.refit if test else None,
        **dict(zip(confirm_columns(metric), values, strict=True)),
        **_estimates(member.point, metric),
        **_costs(member.point),
        **{_on_test(name): (test.further if test else {}).get(_on_test(name)) for name in list_further([member.point])},
        **(dict(zip(CERTIFY_COLUMNS, _certificate_cells(made), strict=True)) if made else {}),
    }


def _certificate_cells(made: Certificate) -> tuple[object, ...]:
    return made.p_value, made.bound, made.certified, made.samples_needed


def list_further(points: Iterable[PointRecord]) -> list[str]:
    """The columns of the further metrics that points have, `val_<name>`."""
    return [*dict.fromkeys(name for point in points for name in point.costs if name not in {*COSTS, MEASURED_LATENCY})]


def _on_test(column: str) -> str:
    """The column of a further metric's values on test data."""
    return column.replace("val_", "test_", 1)


def _last_measures(record: TrialRecord) -> tuple[object, ...]:
    """Compression, factor, metric and feasibility of a trial's last point; None where it has none."""
    if not record.points:
        return (None,) * 4
    last = record.last
    return last.compression, last.factor, last.val_metric, last.feasible


def estimate_columns(metric: Metric) -> list[str]:
    """The column of estimates; there are some of the error alone (`estimates.py`)."""
    return [f"{metric.val}_estimate"] if metric == ERROR else []


def read_judged(table: DataFrame, metric: Metric) -> "Series[float]":
    """The value by which each row of points.csv or pareto.csv is judged: its estimate, where there is one."""
    values = table[metric.val].astype(float)
    for column in estimate_columns(metric):
        if column in table:
            values = pd.to_numeric(table[column]).fillna(values)
    return values


def _estimates(point: PointRecord, metric: Metric) -> dict[str, object]:
    return dict.fromkeys(estimate_columns(metric), point.estimate)


def _costs(point: PointRecord) -> dict[str, object]:
    """Costs, of which one that was not measured is None, and further metrics."""
    return {**dict.fromkeys(COSTS), **point.costs}


def _layer_columns(labels: Sequence[str]) -> list[str]:
    return [f"ratio/{label}" for label in labels] + [f"pruner/{label}" for label in labels]


def _layers(record: TrialRecord, point: PointRecord, labels: Sequence[str]) -> dict[str, object]:
    """Ratio and pruner of every layer: 0.0 and "" where it is not pruned."""
    ratios = {f"ratio/{label}": point.ratios.get(label, 0.0) for label in labels}
    return ratios | {f"pruner/{label}": record.pruners.get(label, "") for label in labels}


def _table(rows: list[dict[str, object]], columns: list[str]) -> DataFrame:
    # as objects, else an integer column with an empty cell would become floats: parent 3 written as 3.0
    return DataFrame(rows, columns=columns, dtype=object)
