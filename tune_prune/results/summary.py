"""summary.json: the outcome of a search as one object. Errors in percent, tradeoffs in the metric's unit."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tune_prune.common.entrypoints import describe_address
from tune_prune.common.parsing import read_json
from tune_prune.results import records
from tune_prune.results.front import CLOSEST_CONF
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.records import EXEMPT_PREFIX
from tune_prune.results.tables import member_row
from tune_prune.tasks.metrics import read_metric


def summarize(outcome: SearchOutcome) -> dict[str, object]:
    """The content of summary.json; only types that JSON has, so an infinite factor is None.

    `trials.completed`, `stopped` and `failed` add up to all trials; `infeasible` are those of the completed trials of
    which no point is feasible. `early_stopping` counts the stopped trials, and the trials that were exempt from it and
    how many of those are on the front. Where `front` is empty, `closest` is the point nearest to being feasible,
    `smallest_tradeoff` the tradeoff that would have made it so, and `hardest_layer` the layer with the highest
    loss when pruned alone as there; otherwise all three are None. `forecast` is what the front is expected to be after
    as much training again, None where too little was seen. `test_interval` says how the intervals of test values
    of another metric than the error were found, or why there are none. Where certificates were asked for, `certify` is
    their confidence, `certified` the most compressed member that is certified, and `certify_method` the test in words.
    """
    info = outcome.info
    summary = {
        "space": info.space,
        "model": describe_address(info.model),
        "data": describe_address(info.data),
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
        "metric": info.metric.to_dict(),
        "dense": {
            info.metric.val: info.dense_metric,
            info.metric.test: outcome.dense_test.metric if outcome.dense_test else None,
            **info.dense_further,
            **(outcome.dense_test.further if outcome.dense_test else {}),
        },
        "layers": info.totals,
        "coverage": info.coverage.to_dict(),
        "trials": _count_trials(outcome),
        "early_stopping": _count_stopped(outcome),
        "points": sum(len(record.points) for record in outcome.records),
        "hypervolume": outcome.hypervolume,
        "forecast": asdict(outcome.forecast) if outcome.forecast else None,
        "wall_seconds": outcome.wall_seconds,
        "cpu_seconds": outcome.cpu_seconds,
        "front": [
            member_row(member, outcome.tested, outcome.confirmed, info.metric, outcome.certificates)
            for member in outcome.members
        ],
        "best": outcome.best.id if outcome.best else None,
        "smallest_tradeoff": outcome.smallest_tradeoff,
        "closest": _closest(outcome),
        "hardest_layer": _hardest_layer(outcome),
        "versions": info.versions,
    }
    return {key: _valid_json(value) for key, value in (summary | _optional(outcome)).items()}


def _optional(outcome: SearchOutcome) -> dict[str, object]:
    """What a summary has only where it was asked for or measured."""
    info, found = outcome.info, dict[str, object]()
    if info.dense_further:
        found["further_metrics"] = [name.removeprefix("val_") for name in info.dense_further]
        found["at_least"] = dict(info.at_least)
    if outcome.interval_method:
        found["test_interval"] = outcome.interval_method
    if outcome.claim:
        found["certify"] = outcome.claim.level
        found["certified"] = outcome.certified.id if outcome.certified else None
        found["certify_method"] = outcome.certify_method
    return found


def _count_trials(outcome: SearchOutcome) -> dict[str, int]:
    states = [record.state for record in outcome.records]
    complete = [record for record in outcome.records if record.state == "complete"]
    return {
        "completed": len(complete),
        "stopped": states.count("stopped"),
        "failed": states.count("failed"),
        "infeasible": sum(not any(point.feasible for point in record.points) for record in complete),
    }


def _count_stopped(outcome: SearchOutcome) -> dict[str, int]:
    exempt = {record.trial for record in outcome.records if record.reason.startswith(EXEMPT_PREFIX)}
    return {
        "stopped": sum(record.state == "stopped" for record in outcome.records),
        "exempt": len(exempt),
        "exempt_on_front": len(exempt & {member.record.trial for member in outcome.members}),
    }


def _closest(outcome: SearchOutcome) -> dict[str, object] | None:
    """The closest point; its configuration is closest.conf, and a search need not keep its weights."""
    if outcome.closest is None:
        return None
    return member_row(outcome.closest, {}, metric=outcome.info.metric) | {"conf": CLOSEST_CONF, "checkpoint": None}


def _hardest_layer(outcome: SearchOutcome) -> dict[str, object] | None:
    if outcome.hardest is None:
        return None
    job = outcome.hardest.job
    return {"layer": job.layer, "ratio": job.ratio, outcome.info.metric.val: outcome.hardest.val_metric}


def _valid_json(value: object) -> object:
    match value:
        case dict():
            return {key: _valid_json(item) for key, item in value.items()}
        case list():
            return [_valid_json(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value


def read_final_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary of a run that is finished and tested, as its records are now; else None."""
    summary = _read_summary(run_dir)
    if summary is None:
        return None
    found = records.read_all(run_dir)
    trials = summary["trials"]
    counted = trials["completed"] + trials["stopped"] + trials["failed"]
    complete = counted == len(found) and all(record.state in records.FINAL_STATES for record in found)
    test = read_metric(summary.get("metric")).test
    tested = all(one[test] is not None for one in (summary["dense"], *summary["front"]))
    return summary if complete and tested else None


def earlier_wall_seconds(run_dir: Path) -> float:
    """The wall-clock seconds of earlier processes of a resumed run, as far as they came to write a summary."""
    summary = _read_summary(run_dir)
    return 0.0 if summary is None else float(summary["wall_seconds"])


def _read_summary(run_dir: Path) -> dict[str, Any] | None:
    """summary.json, None where it is missing or damaged: it is written again from the records."""
    try:
        summary: dict[str, Any] = read_json(run_dir / "summary.json")
    except (FileNotFoundError, ValueError):
        return None
    return summary
