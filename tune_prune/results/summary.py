"""What a run comes to, in one object: summary.json. Errors in percent, tradeoffs in percentage points."""

import math
from collections.abc import Mapping, Sequence

from tune_prune.pruning.sensitivity import SensitivityResult
from tune_prune.results import pareto
from tune_prune.results.confidence import Confirmation
from tune_prune.results.front import Member, TestResult, find_closest, most_compressed
from tune_prune.results.records import EXEMPT_PREFIX, TrialRecord
from tune_prune.results.run_info import RunInfo, round_up
from tune_prune.results.tables import NOT_CONFIRMED, member_row


def hypervolume_of(records: Sequence[TrialRecord], info: RunInfo) -> float:
    """The share in [0, 1] of what is below `info.limit`, up to 1000x, that feasible points dominate; 0 for no room."""
    feasible = [(p.compression, p.val_error) for record in records for p in record.points if p.feasible]
    return pareto.hypervolume(feasible, max_error=info.limit) if info.limit > 0 else 0.0


def summarize(
    records: Sequence[TrialRecord],
    members: Sequence[Member],
    tested: Mapping[str, TestResult],
    info: RunInfo,
    *,
    dense_test_error: float | None,
    wall_seconds: float,
    cpu_seconds: float,
    lost: int = 0,
    hardest: SensitivityResult | None = None,
    confirmed: Mapping[str, Confirmation] = NOT_CONFIRMED,
) -> dict[str, object]:
    """What summary.json says; only types that JSON has, so an infinite factor is None.

    `trials.completed`, `stopped` and `failed` add up to all trials; `lost` are failed ones that left no record.
    `trials.infeasible` are those of the completed of which no point keeps the tradeoff: no fourth state, a part of the
    first. Where `front` is empty, `closest` is the point nearest to keeping the tradeoff and `smallest_tradeoff` the
    percentage points that would have let it in; `hardest_layer` is the `hardest` one there, by itself. Otherwise all
    three are None.
    """
    states = [record.state for record in records]
    complete = [record for record in records if record.state == "complete"]
    best = most_compressed(members)
    summary = {
        "space": info.space,
        "model": info.model,
        "data": info.data,
        "seed": info.seed,
        "budget": info.budget,
        "time_budget": info.time_budget,
        "concurrency": info.concurrency,
        "device": info.device,
        "sampler": info.sampler,
        "command": info.command,
        "acc_tradeoff": info.acc_tradeoff,
        "limit": info.limit,
        "at_most": dict(info.at_most),
        "objectives": list(info.objectives),
        "dense": {"val_error": info.dense_val_error, "test_error": dense_test_error},
        "layers": info.totals,
        "trials": {
            "completed": len(complete),
            "stopped": states.count("stopped"),
            "failed": states.count("failed") + lost,
            "infeasible": sum(not any(point.feasible for point in record.points) for record in complete),
        },
        "stopping": {
            "stopped": states.count("stopped"),
            "exempt": sum(record.reason.startswith(EXEMPT_PREFIX) for record in records),
            "exempt_on_front": len({m.record.trial for m in members if m.record.reason.startswith(EXEMPT_PREFIX)}),
        },
        "points": sum(len(record.points) for record in records),
        "hypervolume": hypervolume_of(records, info),
        "wall_seconds": wall_seconds,
        "cpu_seconds": cpu_seconds,
        "front": [member_row(member, tested, confirmed) for member in members],
        "best": best.id if best else None,
        **_nearest_miss(records, members, info),
        "hardest_layer": None
        if hardest is None
        else {"layer": hardest.cell.layer, "ratio": hardest.cell.ratio, "val_error": hardest.val_error},
        "versions": info.versions,
    }
    return {key: _valid_json(value) for key, value in summary.items()}


def _nearest_miss(records: Sequence[TrialRecord], members: Sequence[Member], info: RunInfo) -> dict[str, object]:
    found = None if members else find_closest(records, info.limits)
    if found is None:
        return {"smallest_tradeoff": None, "closest": None}
    # no tradeoff lets in what oversteps a limit on a cost
    smallest = round_up(found.point.val_error - info.dense_val_error) if found.point.within else None
    # confs/ and checkpoints/ hold the front alone, and a search need not keep the weights of what is not on it
    return {"smallest_tradeoff": smallest, "closest": member_row(found, {}) | {"conf": "best.conf", "checkpoint": None}}


def _valid_json(value: object) -> object:
    match value:
        case dict():
            return {key: _valid_json(item) for key, item in value.items()}
        case list():
            return [_valid_json(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value
